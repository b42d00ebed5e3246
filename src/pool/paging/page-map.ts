import { type MappedBlock, RANGE_BYTES } from "../../formats/mapped-ram/model.ts";
import { type Piece, piecesOf, type Range } from "../../formats/mapped-ram/ranges.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import { pagesDamaged, rangeSum, rangesBefore } from "../page-sums.ts";

/** What all who serve pages of an image share: read once, when it was opened and checked. */
export interface PageMemory {
  /** Of each block, as in the file: a set bit is a page that the file holds. */
  readonly bitmaps: readonly SharedArrayBuffer[];
  /** CRC-32 of the ranges of all blocks, big-endian; null: the image has none. */
  readonly sums: SharedArrayBuffer | null;
}

/** Which pages an image holds, where, and what they must sum to. */
export class PageMap {
  readonly blocks: readonly MappedBlock[];
  readonly #bits: readonly Uint8Array[];
  readonly #sums: DataView | null;
  /** Of each block, the number of its first range among those of all blocks. */
  readonly #firstRange: readonly number[];

  constructor(blocks: readonly MappedBlock[], { bitmaps, sums }: PageMemory) {
    this.blocks = blocks;
    this.#bits = bitmaps.map((memory) => new Uint8Array(memory));
    this.#sums = sums === null ? null : new DataView(sums);
    this.#firstRange = blocks.map((_, number) => rangesBefore(blocks, number));
  }

  block(number: number): MappedBlock {
    return this.blocks[number] as MappedBlock;
  }

  bitmap(block: number): Uint8Array {
    return this.#bits[block] as Uint8Array;
  }

  holds(block: number, page: number): boolean {
    return (((this.bitmap(block)[page >> 3] as number) >> (page & 7)) & 1) === 1;
  }

  /** What to read of a stretch of a block; start and length are multiples of a range, or end with the block. */
  piecesIn(block: number, start: number, length: number): Iterable<Piece> {
    const bits = this.bitmap(block).subarray(start / PAGE_SIZE / 8);
    return piecesOf(this.block(block), { block, start, length }, bits);
  }

  /** What to read of one checksummed range; null where the file holds no page of it. */
  pieceOf(block: number, range: number): Piece | null {
    const start = range * RANGE_BYTES;
    const length = Math.min(RANGE_BYTES, this.block(block).usedLength - start);
    for (const piece of this.piecesIn(block, start, length)) return piece;
    return null;
  }

  /** Compares all ranges of a piece with their checksums, where there are any. Throws IMAGE_DAMAGED. */
  check(block: number, piece: Piece, bytes: Uint8Array): void {
    if (this.#sums === null) return;
    for (const range of piece.ranges) this.#checkRange(block, range, piece, bytes);
  }

  #checkRange(block: number, range: Range, piece: Piece, bytes: Uint8Array): void {
    if (this.#stored(block, range.number) === rangeSum(range, piece, bytes)) return;
    throw pagesDamaged(this.block(block), range.number, range.runs[0]?.start);
  }

  /** A range without pages has the checksum 0, unless bits were lost since the bitmap was checked. Throws IMAGE_DAMAGED. */
  checkEmpty(block: number, range: number): void {
    if (this.#sums === null || this.#stored(block, range) === 0) return;
    throw pagesDamaged(this.block(block), range);
  }

  #stored(block: number, range: number): number {
    return (this.#sums as DataView).getUint32(4 * ((this.#firstRange[block] as number) + range));
  }
}
