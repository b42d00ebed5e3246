import fs from "node:fs";
import { type ErrorCode, MultifdError } from "../../errors.ts";
import type { ImageMetadata } from "../../formats/image/model.ts";
import { encodeFooter, FOOTER_BYTES, type Footer, type Seal } from "../../formats/mapped-ram/footer.ts";
import { sumsBytes } from "../../formats/mapped-ram/map.ts";
import { type MappedStream, streamSpans } from "../../formats/mapped-ram/model.ts";
import { buildTrailer } from "../../formats/mapped-ram/trailer.ts";
import { writeAligned } from "../../io/file-io.ts";
import { flush } from "../../io/image-target/durability.ts";
import type { Target } from "../../io/image-target/target.ts";
import { VERSION } from "../../version.ts";
import type { RunOptions, SavedVm, SaveOptions } from "../options.ts";
import { userMeta } from "../seal.ts";
import { readPages } from "./pages.ts";
import { sumStream, walkStream } from "./stream.ts";

export interface MappedSealOptions extends RunOptions, Pick<SaveOptions, "checksum" | "meta"> {
  /** What QMP told of the VM; null: nothing. */
  readonly vm: SavedVm | null;
  /** UUID of the VM, which this stream does not carry; null: it has none. */
  readonly vmUuid: string | null;
}

/** A mapped-ram file that is an image now. */
export interface SealedMapped {
  readonly footer: Footer & { readonly seal: Seal };
  readonly metadata: ImageMetadata;
  /** Bytes of the stream and of the pages that are present. */
  readonly bytes: number;
}

const PIECE = 1024 * 1024;

/**
 * Makes the file that QEMU calls completed an image: flushed, read back, and the trailer written and flushed. It is none
 * before the footer's flush, whenever the power fails.
 * @throws MultifdError QEMU_FAILED (what QEMU wrote is no whole stream), IO (a page was never written), NO_SPACE, CANCELLED
 */
export async function sealMapped(
  target: Target,
  identity: { readonly uuid: string; readonly createdMs: number },
  options: MappedSealOptions,
): Promise<SealedMapped> {
  const { fd, base } = target;
  const checksums = options.checksum !== "none";
  const end = fs.fstatSync(fd).size;
  await flush(fd);
  const stream = await written(options.image, () => walkStream(fd, base, end));
  const { crc32, presentPages } = await written(options.image, () => sumStream(fd, stream));
  const map = {
    checksums,
    blocks: stream.blocks.map((block, n) => ({ ...block, presentPages: presentPages[n] ?? 0 })),
  };
  const sums = new SharedArrayBuffer(sumsBytes(map));
  const work = checksums ? ({ kind: "sum", sums } as const) : ({ kind: "holes", saving: true } as const);
  const pages = await readPages(options, fd, stream.blocks, presentPages, work);
  const metadata = describeMapped(stream, options);
  const { pieces, footer } = buildTrailer(
    identity,
    { ...stream, crc32 },
    metadata,
    map,
    new Uint8Array(sums),
  );
  for (const { offset, bytes } of pieces) {
    for (let at = 0; at < bytes.length; at += PIECE) {
      await writeAligned(fd, bytes.subarray(at, at + PIECE), offset + at);
    }
  }
  await flush(fd);
  await writeAligned(fd, encodeFooter(footer), footer.seal.imageEnd - FOOTER_BYTES);
  await flush(fd);
  const own = streamSpans(stream).reduce((sum, { length }) => sum + length, 0);
  return { footer, metadata, bytes: pages.bytes + own };
}

/** What the stream and QMP say of the VM, and what the user gave. */
function describeMapped(
  stream: MappedStream,
  { vm, vmUuid, meta = {} }: Pick<MappedSealOptions, "vm" | "vmUuid" | "meta">,
): ImageMetadata {
  const verdict = stream.undecided.length === 0 ? "complete" : "undecided";
  return {
    writer: `multifd-helper ${VERSION}`,
    qemuVersion: vm?.qemuVersion ?? null,
    multifdChannels: 0,
    compression: null,
    machine: stream.machine,
    vmUuid: vmUuid ?? stream.uuid,
    pageSize: stream.pageSize,
    barrierMode: null,
    capabilities: stream.capabilities,
    ramBlocks: stream.blocks.map(({ name, usedLength }) => ({ name, usedLength })),
    devices: stream.devices,
    // What has no bit is passed over by the loader, not cleared.
    needsZeroedRam: true,
    evidence: { verdict, decidedBy: "qmp", reasons: stream.undecided },
    vm: vm?.record ?? null,
    ...userMeta(meta),
  };
}

const NOT_WHOLE: ReadonlySet<ErrorCode> = new Set(["IMAGE_DAMAGED", "NOT_AN_IMAGE", "UNSUPPORTED_VERSION"]);

/** Whoever reads back what QEMU has just written must not say "use another copy". */
async function written<T>(image: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof MultifdError) || !NOT_WHOLE.has(error.code)) throw error;
    const text = `QEMU reported success, but what it wrote to ${image} is no whole mapped-ram stream: ${error.message}`;
    throw new MultifdError("QEMU_FAILED", text, error.details, error);
  }
}
