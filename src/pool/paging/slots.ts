import { Buffer } from "node:buffer";
import { PIECE_BYTES } from "../../formats/mapped-ram/ranges.ts";
import { PAGE_RECORD_BYTES } from "../../formats/migration/record-writer.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";

/** How much of a RAMBlock is read ahead as a whole. */
export const WINDOW_BYTES: number = PIECE_BYTES;
const SLOT_BYTES: number = (WINDOW_BYTES / PAGE_SIZE) * PAGE_RECORD_BYTES;

/** A stretch of a RAMBlock, at most WINDOW_BYTES long. */
export interface Window {
  readonly block: number;
  readonly start: number;
  readonly length: number;
}

const FREE = 0;
const ASSIGNED = 1;
const READY = 2;

/**
 * Where checked pages wait to be sent. The thread that sends assigns a window to a free slot; the thread that the slot
 * belongs to reads and checks the window's pages, and lays them out as records, in ascending order, each as the
 * continuation of a section: 8 bytes of head and 4096 of data.
 */
export class Slots {
  readonly memory: SharedArrayBuffer;
  readonly count: number;
  readonly #states: Int32Array;
  /** Of each slot: block, start, length. */
  readonly #windows: Float64Array;

  constructor(count: number, memory: SharedArrayBuffer = new SharedArrayBuffer(count * (32 + SLOT_BYTES))) {
    this.count = count;
    this.memory = memory;
    this.#windows = new Float64Array(memory, 0, 3 * count);
    this.#states = new Int32Array(memory, 24 * count, count);
  }

  isFree(slot: number): boolean {
    return Atomics.load(this.#states, slot) === FREE;
  }

  isAssigned(slot: number): boolean {
    return Atomics.load(this.#states, slot) === ASSIGNED;
  }

  isReady(slot: number): boolean {
    return Atomics.load(this.#states, slot) === READY;
  }

  assign(slot: number, { block, start, length }: Window): void {
    this.#windows.set([block, start, length], 3 * slot);
    Atomics.store(this.#states, slot, ASSIGNED);
  }

  setReady(slot: number): void {
    Atomics.store(this.#states, slot, READY);
  }

  free(slot: number): void {
    Atomics.store(this.#states, slot, FREE);
  }

  window(slot: number): Window {
    const [block, start, length] = this.#windows.subarray(3 * slot, 3 * slot + 3);
    return { block: block as number, start: start as number, length: length as number };
  }

  /** Room for the records of a window. */
  records(slot: number): Buffer {
    return Buffer.from(this.memory, 32 * this.count + slot * SLOT_BYTES, SLOT_BYTES);
  }
}
