import { MultifdError } from "../errors.ts";
import { type MappedBlock, RANGE_BYTES, rangeCount } from "../formats/mapped-ram/model.ts";
import type { Piece, Range, Stretch } from "../formats/mapped-ram/ranges.ts";
import { crc32 } from "../io/crc32.ts";
import { readSpan } from "../io/file-io.ts";

/** CRC-32 of a range: only the present pages count, in their order. `bytes` are those of the piece. */
export function rangeSum({ runs }: Range, piece: Piece, bytes: Uint8Array): number {
  let crc = 0;
  for (const { start, end } of runs) {
    crc = crc32(bytes.subarray(start - piece.start, end - piece.start), crc);
  }
  return crc;
}

/** How many ranges the blocks before this one have: checksums lie one block's behind the other's. */
export function rangesBefore(blocks: readonly MappedBlock[], block: number): number {
  return blocks.slice(0, block).reduce((sum, one) => sum + rangeCount(one), 0);
}

/** The stored checksums of a stretch's ranges. */
export class StretchSums {
  readonly #block: MappedBlock;
  readonly #first: number;
  readonly #table: DataView;
  /** Ranges that were checked, counted from the stretch's first one. */
  readonly #checked = new Set<number>();

  private constructor(block: MappedBlock, first: number, stored: Uint8Array) {
    this.#block = block;
    this.#first = first;
    this.#table = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
  }

  /** @param sumsOffset file offset of the checksums of all blocks */
  static async read(
    fd: number,
    sumsOffset: number,
    blocks: readonly MappedBlock[],
    { block, start, length }: Stretch,
  ): Promise<StretchSums> {
    const first = rangeCount({ usedLength: start });
    const at = sumsOffset + 4 * (rangesBefore(blocks, block) + first);
    const stored = await readSpan(fd, at, 4 * rangeCount({ usedLength: length }));
    return new StretchSums(blocks[block] as MappedBlock, first, stored);
  }

  /** Throws IMAGE_DAMAGED. */
  check(range: Range, piece: Piece, bytes: Uint8Array): void {
    const place = range.number - this.#first;
    this.#checked.add(place);
    if (this.#table.getUint32(4 * place) === rangeSum(range, piece, bytes)) return;
    const offset = this.#block.pagesOffset + (range.runs[0]?.start ?? 0);
    throw this.#mismatch(offset, range.number);
  }

  /**
   * To be called when all ranges with pages were checked: the others have the checksum 0, unless the bitmap has lost bits
   * since it was checked itself. Throws IMAGE_DAMAGED.
   */
  finish(): void {
    for (let place = 0; place < this.#table.byteLength / 4; place++) {
      if (this.#checked.has(place) || this.#table.getUint32(4 * place) === 0) continue;
      const range = this.#first + place;
      throw this.#mismatch(this.#block.pagesOffset + range * RANGE_BYTES, range);
    }
  }

  #mismatch(offset: number, range: number): MultifdError {
    const { name } = this.#block;
    return new MultifdError(
      "IMAGE_DAMAGED",
      `the image is damaged: pages of RAM block "${name}" at file offset ${offset} do not match their checksum; use another copy of the image`,
      { offset, block: name, range },
    );
  }
}
