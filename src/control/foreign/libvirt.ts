import { type ErrorCode, MultifdError } from "../../errors.ts";
import { decodeLibvirtData, type LibvirtData } from "../../formats/libvirt/data-area.ts";
import { domainUuid } from "../../formats/libvirt/domain-xml.ts";
import {
  decodeLibvirtHeader,
  HEADER_BYTES,
  type LibvirtHeader,
  requireComplete,
} from "../../formats/libvirt/header.ts";
import { readSpan } from "../../io/file-io.ts";
import type { Source } from "../../io/source.ts";
import { inspectMapped } from "../mapped-ram/report.ts";
import type { RunOptions } from "../options.ts";
import type { LibvirtReport, MappedRamReport, QemuStreamReport, VerifyReport } from "../reports.ts";
import { inspectQemuStream, verifyQemuStream } from "./qemu-stream.ts";
import { verifyUnsealed } from "./unsealed-mapped.ts";

/** An image of libvirt of which header and data area were read. */
export interface LibvirtImage {
  readonly header: LibvirtHeader;
  readonly data: LibvirtData;
  /** The same file from where QEMU's stream, or what it was compressed to, begins. */
  readonly stream: Source;
}

/** Reads header and data area. Throws NOT_AN_IMAGE, UNSUPPORTED_VERSION, IMAGE_DAMAGED, IO. */
export async function openLibvirt(source: Source, head: Uint8Array): Promise<LibvirtImage> {
  const { fd, base, available } = source;
  const header = decodeLibvirtHeader(head, available);
  const data = decodeLibvirtData(header, await readSpan(fd, base + HEADER_BYTES, header.dataLength));
  const { streamOffset } = header;
  return {
    header,
    data,
    stream: { ...source, base: base + streamOffset, available: available - streamOffset },
  };
}

/**
 * Says what an image of libvirt is and what is in it. What is wrong with its inside is told, not thrown: header and XML are
 * worth having.
 * @throws MultifdError UNSUPPORTED_VERSION, IMAGE_DAMAGED (of header and data area), IO
 */
export async function inspectLibvirt(
  options: RunOptions,
  source: Source,
  head: Uint8Array,
): Promise<LibvirtReport> {
  const { header, data, stream } = await openLibvirt(source, head);
  const { version, byteOrder, complete, running, format, streamOffset } = header;
  const { contents, problem } = await inspectInside(options, header, stream);
  return {
    ...{ path: options.image, format: "libvirt", sealed: false, imageUuid: null, created: null },
    ...{ base: source.base, bytes: source.available, dataBytes: stream.available },
    ...{ metadata: null, destination: null },
    ...{ version, byteOrder, complete, running, imageFormat: format, streamOffset: stream.base },
    ...{ vmUuid: domainUuid(data.xml), xml: data.xml, cookie: data.cookie, contents, problem },
    ranges: [
      { what: "libvirt's header and XML", offset: source.base, length: streamOffset },
      ...(contents?.ranges ?? []),
    ],
  };
}

/**
 * Reads what can be checked of an image of libvirt.
 * @throws MultifdError NOT_SEALED, NOT_AN_IMAGE (compressed), IMAGE_DAMAGED, STREAM_UNDECIDED, IO, CANCELLED
 */
export async function verifyLibvirt(
  options: RunOptions,
  source: Source,
  head: Uint8Array,
): Promise<Omit<VerifyReport, "path">> {
  const { header, stream } = await openLibvirt(source, head);
  requireComplete(header);
  if (header.format === "raw") return verifyQemuStream(options, stream);
  if (header.format === "sparse") return verifyUnsealed(options, stream);
  throw compressedInside(header, stream, "verify");
}

/** @param then what is to be done with what was unpacked */
export function compressedInside({ format }: LibvirtHeader, stream: Source, then: string): MultifdError {
  const command = `tail -c +${stream.base + 1} FILE | ${format} -dc >vm.stream`;
  const text = `libvirt compressed what is in this image with ${format}, and nothing of it can be read as it is: unpack it (${command}) and ${then} that`;
  return new MultifdError("NOT_AN_IMAGE", text, { format });
}

const OF_THE_INSIDE: ReadonlySet<ErrorCode> = new Set([
  "NOT_AN_IMAGE",
  "UNSUPPORTED_VERSION",
  "IMAGE_DAMAGED",
]);

async function inspectInside(
  options: RunOptions,
  { format }: LibvirtHeader,
  stream: Source,
): Promise<{ contents: QemuStreamReport | MappedRamReport | null; problem: string | null }> {
  try {
    if (format === "raw") return { contents: await inspectQemuStream(options, stream), problem: null };
    if (format === "sparse") return { contents: await inspectMapped(options.image, stream), problem: null };
    return { contents: null, problem: null };
  } catch (error) {
    if (!(error instanceof MultifdError) || !OF_THE_INSIDE.has(error.code)) throw error;
    return { contents: null, problem: error.message };
  }
}
