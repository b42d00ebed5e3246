import { ioError } from "../../io/file-io.ts";
import { allocate } from "../../io/libc.ts";

/** Large enough that reserving costs nothing, small enough that a guest of zeros reserves little for nothing. */
const REGION_BYTES = 16 * 1024 * 1024;
/** Bits for the regions of the largest file that RamTables can describe, its free space included. */
const REGIONS = 2 ** 19;

/** Which regions of a file have their space reserved; shared by all workers of a run. */
export function newRegionBits(): SharedArrayBuffer {
  return new SharedArrayBuffer(REGIONS / 8);
}

/**
 * Reserves a file's space region by region, just before the first page goes there: many writers at places far apart are
 * slow otherwise. What no page needed in the end is given back before the seal.
 */
export class Regions {
  readonly #bits: Uint8Array;
  readonly #fd: number;
  readonly #start: number;
  readonly #end: number;
  #useful = true;

  /** @param start,end of what may be reserved */
  constructor(bits: SharedArrayBuffer, fd: number, start: number, end: number) {
    this.#bits = new Uint8Array(bits);
    this.#fd = fd;
    this.#start = start;
    this.#end = end;
  }

  /** To be called before bytes from `start` to `end` are written. Throws NO_SPACE. */
  reserve(start: number, end: number): void {
    if (!this.#useful) return;
    for (let region = Math.floor(start / REGION_BYTES); region * REGION_BYTES < end; region++) {
      const mask = 1 << (region & 7);
      const before = this.#bits[region >> 3];
      if (before === undefined || (before & mask) !== 0) continue;
      if ((Atomics.or(this.#bits, region >> 3, mask) & mask) === 0) this.#allocate(region);
    }
  }

  #allocate(region: number): void {
    const offset = Math.max(this.#start, region * REGION_BYTES);
    try {
      allocate(this.#fd, offset, Math.min((region + 1) * REGION_BYTES, this.#end) - offset);
    } catch (error) {
      const typed = ioError(error, "reserving space", offset);
      if (typed.code === "NO_SPACE") throw typed;
      // Devices and some file systems cannot reserve: plain writes do as well.
      this.#useful = false;
    }
  }
}
