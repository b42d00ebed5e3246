import { type MappedBlock, RANGE_BYTES } from "./model.ts";

/** A run of present pages: bytes of the block's pages region. */
export interface Run {
  readonly start: number;
  readonly end: number;
}

/** A checksummed range of a block that has pages. */
export interface Range {
  /** Its number within the block. */
  readonly number: number;
  readonly runs: readonly Run[];
}

/** Ranges to read at once. */
export interface Piece {
  /** File offset of its first present page. */
  readonly offset: number;
  /** Bytes up to the end of its last present page. */
  readonly length: number;
  /** Where it begins in the block's pages region. */
  readonly start: number;
  readonly ranges: readonly Range[];
}

/** A stretch of a block that is dealt with as a whole; its bitmap has whole bytes. */
export interface Stretch {
  readonly block: number;
  /** Bytes of the block's pages region, from a multiple of STRETCH_BYTES on. */
  readonly start: number;
  readonly length: number;
}

/** 1 KiB of bitmap and 2 KiB of checksums where pages have 4 KiB. */
export const STRETCH_BYTES: number = 32 * 1024 * 1024;
/** Largest piece. */
export const PIECE_BYTES: number = 1024 * 1024;

/** The stretches of all blocks are numbered one after the other. Answers null behind the last one. */
export function stretchAt(blocks: readonly MappedBlock[], number: number): Stretch | null {
  let before = 0;
  for (const [block, { usedLength }] of blocks.entries()) {
    const start = (number - before) * STRETCH_BYTES;
    if (start < usedLength) return { block, start, length: Math.min(STRETCH_BYTES, usedLength - start) };
    before += Math.ceil(usedLength / STRETCH_BYTES);
  }
  return null;
}

/** The piece of the bitmap that stands for a stretch. */
export function bitmapOf(block: MappedBlock, { start, length }: Stretch): { offset: number; length: number } {
  const first = start / block.pageSize / 8;
  return { offset: block.bitmapOffset + first, length: Math.ceil(length / block.pageSize / 8) };
}

/**
 * The pieces of a stretch that hold pages, in order.
 * @param bits what stands at bitmapOf: page n of the stretch is bit n % 8, from the lowest, of byte n / 8
 * @param pieceBytes a piece's largest size, a multiple of RANGE_BYTES
 */
export function* piecesOf(
  block: MappedBlock,
  stretch: Stretch,
  bits: Uint8Array,
  pieceBytes: number = PIECE_BYTES,
): Generator<Piece, void, undefined> {
  let ranges: Range[] = [];
  for (let at = 0; at < stretch.length; at += RANGE_BYTES) {
    const runs = runsOf(block, stretch, bits, at);
    if (runs.length > 0) ranges.push({ number: (stretch.start + at) / RANGE_BYTES, runs });
    if (ranges.length > 0 && (runs.length === 0 || ranges.length * RANGE_BYTES === pieceBytes)) {
      yield piece(block, ranges);
      ranges = [];
    }
  }
  if (ranges.length > 0) yield piece(block, ranges);
}

/**
 * Where in the block those pages of a stretch lie that are not in the file, and so are zero.
 * @param bits as for piecesOf
 */
export function* absentPages(
  { pageSize }: MappedBlock,
  { start, length }: Stretch,
  bits: Uint8Array,
): Generator<number, void, undefined> {
  for (let page = 0; page < length / pageSize; page++) {
    if ((((bits[page >> 3] as number) >> (page & 7)) & 1) === 0) yield start + page * pageSize;
  }
}

function runsOf({ pageSize }: MappedBlock, stretch: Stretch, bits: Uint8Array, at: number): Run[] {
  const runs: Run[] = [];
  const begin = at / pageSize;
  const end = Math.min(at + RANGE_BYTES, stretch.length) / pageSize;
  // Most ranges are of 16 pages of which all are there, or none.
  if (end - begin === 16) {
    const all = (bits[begin >> 3] as number) | ((bits[(begin >> 3) + 1] as number) << 8);
    if (all === 0) return runs;
    if (all === 0xffff) return [{ start: stretch.start + at, end: stretch.start + end * pageSize }];
  }
  let first = -1;
  for (let page = begin; page <= end; page++) {
    const present = page < end && (((bits[page >> 3] as number) >> (page & 7)) & 1) === 1;
    if (present && first < 0) first = page;
    if (present || first < 0) continue;
    runs.push({ start: stretch.start + first * pageSize, end: stretch.start + page * pageSize });
    first = -1;
  }
  return runs;
}

function piece(block: MappedBlock, ranges: readonly Range[]): Piece {
  const start = ranges[0]?.runs[0]?.start ?? 0;
  const end = ranges.at(-1)?.runs.at(-1)?.end ?? start;
  return { offset: block.pagesOffset + start, length: end - start, start, ranges };
}

const SET_BITS: Uint8Array = Uint8Array.from({ length: 256 }, (_, byte) => {
  let count = 0;
  for (let rest = byte; rest > 0; rest >>= 1) count += rest & 1;
  return count;
});

/** Counts the pages of a block that are present, over its bitmap piece by piece. */
export class PresentPages {
  /** Bits that stand for pages; QEMU rounds the bitmap up to whole words. */
  readonly #bits: number;
  #seen = 0;
  count = 0;

  constructor(block: MappedBlock) {
    this.#bits = block.usedLength / block.pageSize;
  }

  /** Takes the next bytes of the bitmap. */
  push(bytes: Uint8Array): void {
    let count = 0;
    const whole = Math.min(bytes.length, Math.max(0, Math.floor(this.#bits / 8) - this.#seen));
    for (let at = 0; at < whole; at++) count += SET_BITS[bytes[at] as number] as number;
    const left = this.#bits - (this.#seen + whole) * 8;
    // What is behind the last page means nothing.
    if (whole < bytes.length && left > 0)
      count += SET_BITS[(bytes[whole] as number) & ((1 << left) - 1)] as number;
    this.#seen += bytes.length;
    this.count += count;
  }
}
