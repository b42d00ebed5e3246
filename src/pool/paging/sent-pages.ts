import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { PresentPages } from "../../formats/mapped-ram/ranges.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import type { PageMap } from "./page-map.ts";

/**
 * Which pages the destination has got. A page that is sent twice breaks its connection off, and one that is never sent reads
 * as zeros without a word: so each has its bit here, and whoever ends the migration asks `missing`.
 */
export class SentPages {
  readonly #map: PageMap;
  readonly #bits: readonly Uint8Array[];
  /** Pages of the image that were not sent. */
  missing: number;
  /** Pages of the image. */
  readonly total: number;
  #closed = false;

  constructor(map: PageMap) {
    this.#map = map;
    this.#bits = map.blocks.map((_, block) => new Uint8Array(map.bitmap(block).length));
    this.total = map.blocks.reduce((sum, _, block) => sum + count(map.bitmap(block), map.block(block)), 0);
    this.missing = this.total;
  }

  /** From here on no page is to be sent: what the destination has not got reads as zeros there. */
  close(): void {
    this.#closed = true;
  }

  /** Whether a page must not be sent. */
  has(block: number, page: number): boolean {
    return (
      this.#closed || ((((this.#bits[block] as Uint8Array)[page >> 3] as number) >> (page & 7)) & 1) === 1
    );
  }

  /** To be called once for each page, before it goes. */
  add(block: number, page: number): void {
    const bits = this.#bits[block] as Uint8Array;
    bits[page >> 3] = (bits[page >> 3] as number) | (1 << (page & 7));
    if (this.#map.holds(block, page)) this.missing--;
  }

  /** What the destination says it has; it counts, whatever was sent before. */
  take(block: number, received: Uint8Array): void {
    const bits = this.#bits[block] as Uint8Array;
    const held = this.#map.bitmap(block);
    const place = this.#map.block(block);
    this.missing += count(and(held, bits), place);
    bits.set(received);
    this.missing -= count(and(held, bits), place);
  }

  /** Whether a stretch of a block has pages of the image that were not sent. */
  anyMissing(block: number, start: number, length: number): boolean {
    const held = this.#map.bitmap(block);
    const bits = this.#bits[block] as Uint8Array;
    const [from, to] = [start / PAGE_SIZE / 8, Math.ceil((start + length) / PAGE_SIZE / 8)];
    for (let at = from; at < to; at++) if (((held[at] as number) & ~(bits[at] as number)) !== 0) return true;
    return false;
  }
}

function and(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, at) => byte & (b[at] as number));
}

/** Set bits that stand for pages of the block. */
function count(bits: Uint8Array, block: MappedBlock): number {
  const pages = new PresentPages(block);
  pages.push(bits);
  return pages.count;
}
