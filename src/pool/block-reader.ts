import { crc32 } from "node:zlib";
import { MultifdError } from "../errors.ts";
import { type Block, blocks } from "../formats/image/blocks.ts";
import type { ChannelRecord } from "../formats/image/model.ts";
import { padded, readAt } from "../io/file-io.ts";
import type { BorrowedImage } from "./messages.ts";

/** A block of which the first `skip` bytes were dealt with before. */
export interface Piece extends Block {
  readonly skip: number;
}

/** The blocks of a channel from a byte position on. */
export function* blocksFrom(record: ChannelRecord, position: number): Generator<Piece, void, undefined> {
  for (const block of blocks(record)) {
    if (block.position + block.length <= position && block.length > 0) continue;
    yield { ...block, skip: Math.max(0, position - block.position) };
  }
}

/** Reads a block into the start of an aligned slot and checks it. Throws IMAGE_DAMAGED. */
export async function readBlock(image: BorrowedImage, block: Block, slot: Uint8Array): Promise<void> {
  const offset = image.base + block.offset;
  await readAt(image.fd, slot.subarray(0, padded(block.length)), offset);
  if (block.crc32 === null) return;
  const found = crc32(slot.subarray(0, block.length));
  if (found === block.crc32) return;
  throw new MultifdError(
    "IMAGE_DAMAGED",
    `the image is damaged: the ${block.length} bytes at file offset ${offset} do not match their checksum; use another copy of the image`,
    { offset, length: block.length, position: block.position },
  );
}
