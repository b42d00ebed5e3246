import { MultifdError } from "../errors.ts";
import { type Block, blocks } from "../formats/image/blocks.ts";
import type { ChannelRecord } from "../formats/image/model.ts";
import { crc32 } from "../io/crc32.ts";
import { DIRECT_ALIGNMENT, padded, readAligned, readAt } from "../io/file-io.ts";
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

/**
 * The stored checksums of one channel, read from the index a page at a time: those of a large image would fill memory.
 * The index as a whole was checked when the image was opened; a page that changes afterwards makes its
 * blocks look damaged, never a damaged block look good by chance.
 */
export class StoredChecksums {
  readonly #image: Pick<BorrowedImage, "fd" | "base">;
  #pageAt = -1;
  #page: Promise<Uint8Array> = Promise.resolve(new Uint8Array(0));

  constructor(image: Pick<BorrowedImage, "fd" | "base">) {
    this.#image = image;
  }

  /** @param at from the base of the image, a multiple of 4; one place behind the other, or a page is read anew */
  async at(at: number): Promise<number> {
    const within = at % DIRECT_ALIGNMENT;
    if (at - within !== this.#pageAt) {
      this.#pageAt = at - within;
      this.#page = readAligned(this.#image.fd, this.#image.base + this.#pageAt, DIRECT_ALIGNMENT);
    }
    const page = await this.#page;
    return new DataView(page.buffer, page.byteOffset).getUint32(within);
  }
}

/** Reads a block into the start of an aligned slot and checks it. Throws IMAGE_DAMAGED. */
export async function readBlock(
  image: Pick<BorrowedImage, "fd" | "base">,
  block: Block,
  slot: Uint8Array,
  checksums: StoredChecksums,
): Promise<void> {
  const offset = image.base + block.offset;
  const [stored] = await Promise.all([
    block.checksumAt === null ? null : checksums.at(block.checksumAt),
    readAt(image.fd, slot.subarray(0, padded(block.length)), offset),
  ]);
  if (stored === null || crc32(slot.subarray(0, block.length)) === stored) return;
  throw new MultifdError(
    "IMAGE_DAMAGED",
    `the image is damaged: the ${block.length} bytes at file offset ${offset} do not match their checksum; use another copy of the image`,
    { offset, length: block.length, position: block.position },
  );
}
