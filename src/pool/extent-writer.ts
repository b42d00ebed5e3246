import { MultifdError } from "../errors.ts";
import type { Extent } from "../formats/image/model.ts";
import { padded } from "../io/file-io.ts";
import { allocate } from "../io/libc.ts";
import type { ControlBlock } from "./control-block.ts";
import type { BorrowedImage, DrainTask } from "./messages.ts";

const MIB = 1024 * 1024;
const SMALLEST_EXTENT = 2 * MIB;
/** 16 TiB over any number of channels then keep within the extents that an image may have. */
const LARGEST_EXTENT = 128 * MIB;
/** Main and 4 channels: with fewer writers, reserving space costs more than it gains. */
const RESERVE_FROM = 5;
/** As much is reserved at once: each time, all direct writes under way are waited for. */
const REGION = 64 * MIB;

/**
 * Gives each block of one channel its place. Extents come from a cursor that all workers share, so that
 * no region ever has two writers and any imbalance between channels is fine.
 *
 * An extent is about a 64th of what its channel wrote so far: long runs for large guests, and at 255
 * channels no more than 2 MiB of unused tail each (which is given back to the file system besides).
 */
export class ExtentWriter {
  readonly #control: ControlBlock;
  readonly #task: DrainTask;
  readonly #extents: { offset: number; length: number }[] = [];
  #preallocate: boolean;
  #placed = 0;
  /** Start and end of the free part of the current extent, from the image's base. */
  #next = 0;
  #end = 0;

  constructor(control: ControlBlock, task: DrainTask) {
    this.#control = control;
    this.#task = task;
    this.#preallocate = task.sparse;
  }

  get extents(): readonly Extent[] {
    return this.#extents;
  }

  get claimedEnd(): number {
    return this.#end;
  }

  /** @returns where the next block goes, as an offset from the image's base */
  place(length: number): number {
    if (this.#next === this.#end) this.#claim();
    const offset = this.#next;
    this.#next += padded(length);
    this.#placed += length;
    const last = this.#extents.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else this.#extents.push({ offset, length });
    return offset;
  }

  #claim(): void {
    const wanted = 2 ** Math.floor(Math.log2(Math.max(1, this.#placed / 64)));
    const bytes = Math.min(LARGEST_EXTENT, Math.max(SMALLEST_EXTENT, wanted));
    this.#next = this.#control.claim(bytes);
    this.#end = this.#next + bytes;
    const { capacity, image } = this.#task;
    if (capacity !== null && this.#end > capacity) {
      throw new MultifdError(
        "NO_SPACE",
        `the image does not fit: its device ends ${capacity} bytes behind the image's start; use a larger one`,
        { capacity },
      );
    }
    if (this.#preallocate && this.#control.connections >= RESERVE_FROM) this.#reserve(image);
  }

  /**
   * Makes room for the current extent, and where the file ends with the image also for what comes behind it, whosever that will
   * be: what of it stays unused is cut off in the end. Nobody waits for a region that another worker is about to reserve.
   */
  #reserve({ fd, base }: BorrowedImage): void {
    const { ownsFile } = this.#task;
    const start = ownsFile ? this.#control.claimRoom(this.#end, REGION) : this.#next;
    if (start === null) return;
    try {
      allocate(fd, base + start, ownsFile ? REGION : this.#end - this.#next);
    } catch {
      // Devices and some file systems cannot reserve. Where there is no room for a region, there may be for what is written.
      this.#preallocate = false;
    }
  }
}
