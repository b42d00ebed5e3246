import type { MappedBlock } from "../../src/formats/mapped-ram/model.ts";
import { PageMap } from "../../src/pool/paging/page-map.ts";

const PAGE = 4096;

export interface BlockOfPages {
  readonly name?: string;
  readonly pages: number;
  /** Numbers of the pages that the image holds. */
  readonly held: readonly number[];
}

/** A bitmap of whole words of 64 bits with these bits set. */
export function bitmapWith(pages: number, set: readonly number[]): Uint8Array {
  const bits = new Uint8Array(Math.ceil(pages / 64) * 8);
  for (const page of set) bits[page >> 3] = (bits[page >> 3] ?? 0) | (1 << (page & 7));
  return bits;
}

/** Blocks that lie one behind the other in a file from its byte 0 on: nothing but their pages. */
export function blocksOf(specs: readonly BlockOfPages[]): MappedBlock[] {
  let end = 0;
  return specs.map(({ name, pages }, number) => {
    const block = {
      name: name ?? `block${number}`,
      usedLength: pages * PAGE,
      pageSize: PAGE,
      bitmapOffset: 0,
      pagesOffset: end,
    };
    end += block.usedLength;
    return block;
  });
}

/** Which pages such blocks hold. @param sums CRC-32 of all ranges; null: none */
export function mapOf(specs: readonly BlockOfPages[], sums: readonly number[] | null = null): PageMap {
  const shared = (bytes: Uint8Array): SharedArrayBuffer => {
    const memory = new SharedArrayBuffer(bytes.length);
    new Uint8Array(memory).set(bytes);
    return memory;
  };
  const words = sums === null ? null : new Uint8Array(4 * sums.length);
  for (const [number, sum] of (sums ?? []).entries())
    new DataView((words as Uint8Array).buffer).setUint32(4 * number, sum);
  return new PageMap(blocksOf(specs), {
    bitmaps: specs.map(({ pages, held }) => shared(bitmapWith(pages, held))),
    sums: words === null ? null : shared(words),
  });
}
