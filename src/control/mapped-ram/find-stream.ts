import { MultifdError } from "../../errors.ts";
import { magicOf } from "../../formats/image/state-page.ts";
import { MAGIC as IMAGE_MAGIC } from "../../formats/image/superblock.ts";
import { decodeLibvirtData } from "../../formats/libvirt/data-area.ts";
import { domainUuid } from "../../formats/libvirt/domain-xml.ts";
import {
  decodeLibvirtHeader,
  HEADER_BYTES,
  isLibvirtImage,
  requireComplete,
} from "../../formats/libvirt/header.ts";
import { isQemuStream } from "../../formats/mapped-ram/stream.ts";
import { readSpan } from "../../io/file-io.ts";
import type { Source } from "../../io/source.ts";
import { refuseUnfinished } from "./unfinished.ts";

/** Where QEMU's stream begins in a file. */
export interface StreamPlace {
  readonly base: number;
  /** What stands before it says of the VM; null: nothing. */
  readonly uuid: string | null;
}

/**
 * Looks for a stream of QEMU at the image's start, or behind libvirt's header there. Programs that have QEMU write behind
 * a header of theirs need not align it as we do.
 * @param head what stands at source.base
 * @param offset as it was given, before it was rounded up to source.base
 * @returns null where neither stands there
 * @throws MultifdError NOT_SEALED (never finished), UNSUPPORTED_VERSION, IMAGE_DAMAGED, NOT_AN_IMAGE (another format of libvirt's)
 */
export async function findStream(
  source: Source,
  head: Uint8Array,
  offset: number,
): Promise<StreamPlace | null> {
  const { fd, base, available } = source;
  if (isQemuStream(head)) return { base, uuid: null };
  const end = base + available;
  const start =
    offset === base ? head : await readSpan(fd, offset, Math.min(HEADER_BYTES, Math.max(0, end - offset)));
  if (isQemuStream(start)) return { base: offset, uuid: null };
  if (!isLibvirtImage(start)) {
    if (magicOf(head) !== IMAGE_MAGIC) await refuseUnfinished(source, head);
    return null;
  }
  const header = decodeLibvirtHeader(start, end - offset);
  requireComplete(header);
  if (header.format !== "sparse") throw notSparse(header.format);
  const data = decodeLibvirtData(header, await readSpan(fd, offset + HEADER_BYTES, header.dataLength));
  return { base: offset + header.streamOffset, uuid: domainUuid(data.xml) };
}

function notSparse(format: string): MultifdError {
  const text = `this is an image of libvirt in its format "${format}", and only "sparse" can be restored by multifd-helper: use virsh restore`;
  return new MultifdError("NOT_AN_IMAGE", text, { format });
}
