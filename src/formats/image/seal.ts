import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { MultifdError } from "../../errors.ts";
import { alignUp } from "./align.ts";
import { extentsOf } from "./extents.ts";
import { encodeIndex } from "./index.ts";
import { encodeMetadata } from "./metadata.ts";
import { type ImageMetadata, SUPERBLOCK_BYTES, type Superblock, type WrittenIndex } from "./model.ts";
import { openImage } from "./open.ts";

/** What makes written channel data an image. */
export interface Seal {
  /** Where `closing` goes, relative to the base: behind all extents. */
  readonly offset: number;
  /** Metadata and index, padded to a multiple of 4096. To be written and flushed before the superblock. */
  readonly closing: Buffer;
  /** The sealed superblock, to be written last. */
  readonly superblock: Superblock;
}

/**
 * Builds the seal, and opens the image as a reader would before handing it out: an image that no reader accepts must
 * not replace a good one.
 *
 * @throws MultifdError USAGE (metadata too large), INTERNAL (the index breaks a rule of the format)
 */
export function buildSeal(
  image: Pick<Superblock, "uuid" | "createdMs">,
  metadata: ImageMetadata,
  index: WrittenIndex,
): Seal {
  const metadataBytes = encodeMetadata(metadata);
  const indexBytes = encodeIndex(index);
  const offset = endOfData(index);
  const indexOffset = offset + alignUp(metadataBytes.length);
  const superblock: Superblock = {
    state: "sealed",
    uuid: image.uuid,
    createdMs: image.createdMs,
    imageBytes: indexOffset + alignUp(indexBytes.length),
    metadata: { offset, length: metadataBytes.length, crc32: crc32(metadataBytes) },
    index: { offset: indexOffset, length: indexBytes.length, crc32: crc32(indexBytes) },
  };
  try {
    openImage(superblock, { metadata: metadataBytes, index: indexBytes }, superblock.imageBytes);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new MultifdError(
      "INTERNAL",
      `the image cannot be sealed because no reader would accept it: ${why}`,
      {},
      cause,
    );
  }
  const closing = Buffer.alloc(superblock.imageBytes - offset);
  closing.set(metadataBytes, 0);
  closing.set(indexBytes, indexOffset - offset);
  return { offset, closing, superblock };
}

/** The first aligned byte behind superblock and extents. */
function endOfData(index: WrittenIndex): number {
  let end = SUPERBLOCK_BYTES;
  for (const record of index.channels) {
    for (const extent of extentsOf(record)) end = Math.max(end, extent.offset + alignUp(extent.length));
  }
  return end;
}
