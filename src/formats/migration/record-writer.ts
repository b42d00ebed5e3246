import type { Buffer } from "node:buffer";
import { RAM_FLAGS } from "./ram-records.ts";
import { PAGE_SIZE } from "./wire.ts";

const WORD_BYTES = 8;
const HIGH_WORD = 2 ** 32;
/** A record of a zero page, and one with a page's data, of the same block as the record before. */
export const ZERO_RECORD_BYTES: number = WORD_BYTES + 1;
export const PAGE_RECORD_BYTES: number = WORD_BYTES + PAGE_SIZE;

/** What the first record of a block is longer. */
export function blockNameBytes(block: string): number {
  return 1 + block.length;
}

/** Writes RAM records of main: ram_save_target_page and save_zero_page, QEMU 7.2 to 10.0, migration/ram.c. */
export class RecordWriter {
  #block: string | null = null;

  /** The record of a zero page, which a destination clears whatever it held. @returns the position behind it */
  zero(into: Buffer, at: number, block: string, address: number): number {
    const end = this.#head(into, at, RAM_FLAGS.ZERO, block, address);
    into[end] = 0;
    return end + 1;
  }

  /** What stands before the data of a page. @returns the position behind it */
  page(into: Buffer, at: number, block: string, address: number): number {
    return this.#head(into, at, RAM_FLAGS.PAGE, block, address);
  }

  #head(into: Buffer, at: number, kind: number, block: string, address: number): number {
    const continues = block === this.#block;
    into.writeUInt32BE(Math.floor(address / HIGH_WORD), at);
    into.writeUInt32BE(
      (address % HIGH_WORD) + kind + (continues ? RAM_FLAGS.CONTINUE : 0),
      at + WORD_BYTES / 2,
    );
    if (continues) return at + WORD_BYTES;
    this.#block = block;
    into[at + WORD_BYTES] = block.length;
    return at + WORD_BYTES + 1 + into.write(block, at + WORD_BYTES + 1, "latin1");
  }
}
