import { U64_BYTES } from "../image/u64.ts";
import type { RamBlock } from "../migration/summary.ts";

/**
 * The values inside a mapped-ram file (docs/formats/mapped-ram.md): QEMU's own part, and the trailer behind it. All
 * offsets count from the start of the file, as QEMU's own do, wherever the stream begins in it.
 */

/** Pages are checksummed in ranges of this many bytes of a block's pages region. */
export const RANGE_BYTES: number = 64 * 1024;

/** One RAMBlock and where it lies. */
export interface MappedBlock extends RamBlock {
  readonly pageSize: number;
  /** One bit for each page, in little-endian words of 64: set where the page is in the file. */
  readonly bitmapOffset: number;
  /** Page n of the block is at pagesOffset + n * pageSize, if its bit is set. A multiple of the page size. */
  readonly pagesOffset: number;
}

/** One of RAM's sections: START, any PARTs, END. */
export interface RamSection {
  /** Of its type byte, and behind its footer. */
  readonly start: number;
  readonly end: number;
  /** Behind its header. */
  readonly payload: number;
  /** The word that ends its payload. */
  readonly eos: number;
}

/** Where those parts of a stream lie that are different where RAM is not at fixed places of a file. */
export interface Landmarks {
  /** The configuration's subsection that lists capabilities. */
  readonly capabilities: { readonly start: number; readonly end: number };
  readonly ramId: number;
  /** In order: START first, END last. */
  readonly ram: readonly RamSection[];
}

/** QEMU's part of a mapped-ram file. */
export interface MappedStream {
  /** Where its first byte, the Q of "QEVM", lies. */
  readonly base: number;
  /** Behind its last byte. */
  readonly end: number;
  /** Of the byte behind the devices that ends them; a vmdescription may follow. */
  readonly eofByte: number;
  readonly machine: string;
  readonly pageSize: number;
  readonly capabilities: readonly string[];
  /** VM UUID, only with validate-uuid. */
  readonly uuid: string | null;
  readonly blocks: readonly MappedBlock[];
  /** null where it could not be followed to the end of RAM: the last of `undecided` says why. */
  readonly landmarks: Landmarks | null;
  /** Names of the sections behind RAM; empty without a vmdescription. */
  readonly devices: readonly string[];
  /** Why it could not be followed to its end, for people; empty when it could. */
  readonly undecided: readonly string[];
}

/** A run of bytes of the file. */
export interface Span {
  readonly offset: number;
  readonly length: number;
}

/** Size of a block's bitmap: whole words of 64 pages. */
export function bitmapBytes({ usedLength, pageSize }: Pick<MappedBlock, "usedLength" | "pageSize">): number {
  return Math.ceil(usedLength / pageSize / 64) * U64_BYTES;
}

/** Checksummed ranges of a block; the last one may be shorter than the others. */
export function rangeCount({ usedLength }: Pick<MappedBlock, "usedLength">): number {
  return Math.ceil(usedLength / RANGE_BYTES);
}

/**
 * The stream's own bytes in ascending order: all of it but the pages regions and what QEMU leaves free between a
 * bitmap and its pages.
 */
export function streamSpans({ base, end, blocks }: Pick<MappedStream, "base" | "end" | "blocks">): Span[] {
  const spans: Span[] = [];
  let from = base;
  for (const block of blocks) {
    spans.push({ offset: from, length: block.bitmapOffset + bitmapBytes(block) - from });
    from = block.pagesOffset + block.usedLength;
  }
  return [...spans, { offset: from, length: end - from }];
}
