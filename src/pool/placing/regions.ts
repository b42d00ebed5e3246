import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { allocate } from "../../io/libc.ts";
import type { RamTables } from "./ram-tables.ts";

/** Large enough that reserving costs nothing, small enough that little of it stays unused where dense pages end. */
const REGION_BYTES = 32 * 1024 * 1024;
/** Bits for the regions of the largest file that RamTables can describe, its free space included. */
const REGIONS = 2 ** 18;
/** As much in long runs, one behind the other, tells that a connection carries pages without gaps: more than Linux's do. */
const DENSE_BYTES = 64 * 1024 * 1024;
/** What counts as a long run: no more than the smallest slot takes. */
const RUN_BYTES = 128 * 1024;

/** Which regions of a file have their space reserved; shared by all workers of a run. */
export function newRegionBits(): SharedArrayBuffer {
  return new SharedArrayBuffer(REGIONS / 8);
}

/**
 * Reserves a file's space region by region, just before the first page goes there: many writers at places far apart are
 * slow otherwise. But only where pages come without gaps: what stays unused is given back before the seal, and that is dear
 * (some 0.3 ms for each hole on ext4).
 */
export class Regions {
  readonly #bits: Uint8Array;
  readonly #fd: number;
  readonly #tables: RamTables;
  /** Bytes in long runs since the last short one. */
  #dense = 0;
  #useful = true;

  constructor(bits: SharedArrayBuffer, fd: number, tables: RamTables) {
    this.#bits = new Uint8Array(bits);
    this.#fd = fd;
    this.#tables = tables;
  }

  /** To be called with each run of pages before it is written. */
  reserve(block: number, page: number, count: number): void {
    const { pagesOffset, pageSize } = this.#tables.blocks[block] as MappedBlock;
    this.#dense = count * pageSize < RUN_BYTES ? 0 : this.#dense + count * pageSize;
    if (!this.#useful || this.#dense < DENSE_BYTES) return;
    const start = pagesOffset + page * pageSize;
    const end = start + count * pageSize;
    for (let region = Math.floor(start / REGION_BYTES); region * REGION_BYTES < end; region++) {
      const mask = 1 << (region & 7);
      const before = this.#bits[region >> 3];
      if (before === undefined || (before & mask) !== 0) continue;
      if ((Atomics.or(this.#bits, region >> 3, mask) & mask) === 0) this.#allocate(block, region);
    }
  }

  /** What of the region belongs to the block: what lies between blocks stays a hole. */
  #allocate(block: number, region: number): void {
    const { pagesOffset, usedLength, pageSize } = this.#tables.blocks[block] as MappedBlock;
    const start = Math.max(pagesOffset, region * REGION_BYTES);
    const end = Math.min(pagesOffset + usedLength, (region + 1) * REGION_BYTES);
    // Of a page in two regions (pages may be larger than 4 KiB, offsets of images are not) both count as its room.
    const first = Math.floor((start - pagesOffset) / pageSize);
    this.#tables.setRoomy(block, first, Math.ceil((end - pagesOffset) / pageSize) - first);
    try {
      allocate(this.#fd, start, end - start);
    } catch {
      // Devices and some file systems cannot reserve. Where there is no room for the region, there may be for its pages.
      this.#useful = false;
    }
  }
}
