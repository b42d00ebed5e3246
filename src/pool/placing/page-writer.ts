import { NOWHERE } from "../../formats/mapped-ram/layout.ts";
import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { crc32 } from "../../io/crc32.ts";
import type { WriteAt } from "../../io/file-io.ts";
import { WriteRing } from "../../io/write-ring.ts";
import type { ControlBlock } from "../control-block.ts";
import type { PlaceTask } from "../messages.ts";
import { admitted } from "./admitted.ts";
import { digestOf, RamTables } from "./ram-tables.ts";
import { Regions } from "./regions.ts";
import { ShortRuns } from "./short-runs.ts";

/** Writes of one slot at once: as many as there are threads that write. More only means more that waits, and garbage that lives long. */
const LANES = 4;

/** What pages are written with. */
export interface Disk {
  readonly write: WriteAt;
  /** Short runs of pages go through the page cache where that is of use. */
  readonly cachesShortRuns: boolean;
}

/** Pages that lie side by side in their block. */
interface PageRun {
  readonly block: number;
  first: number;
  count: number;
}

/** Bytes and their place in the file. */
interface Piece {
  readonly bytes: Uint8Array;
  readonly offset: number;
}

/**
 * Puts pages to their places: whoever reads them names the pages with `expect`, fills `space` with their bytes in the
 * same order, and says how many came. Pages that lie side by side go out in one write.
 */
export class PageWriter {
  readonly #task: PlaceTask;
  readonly #control: ControlBlock;
  readonly #disk: Disk;
  readonly #ring: WriteRing;
  readonly #fail: (error: unknown) => void;
  readonly #short: ShortRuns;
  /** Pages whose bytes have not come whole, in their order. */
  readonly #expected: PageRun[] = [];
  /** What the current slot holds: pages, and bytes, those of a page that is not whole included. */
  #runs: PageRun[] = [];
  #pages = 0;
  #bytes = 0;
  /** The pages of each slot: making views anew for every checksum costs half as much as the checksum. */
  readonly #views = new Map<Uint8Array, readonly Buffer[]>();
  #tables: RamTables | null = null;
  #regions: Regions | null = null;
  #spare: { readonly promise: Promise<void>; readonly resolve: () => void } | null = null;

  constructor(
    task: PlaceTask,
    control: ControlBlock,
    disk: Disk,
    slots: readonly Uint8Array[],
    fail: (error: unknown) => void,
  ) {
    this.#task = task;
    this.#control = control;
    this.#disk = disk;
    this.#fail = fail;
    this.#short = new ShortRuns(task.image, task.sparse && disk.cachesShortRuns);
    this.#ring = new WriteRing(
      slots,
      (slot, length) => this.#store(slot, length),
      () => this.#onSpare(),
      (error) => this.#fail(error),
    );
  }

  /** What is known of the pages; only once the layout is there. */
  get tables(): RamTables {
    this.#tables ??= new RamTables(this.#task.ram);
    return this.#tables;
  }

  /** Where the next bytes of the expected pages go; never empty. */
  get space(): Uint8Array {
    return this.#ring.space();
  }

  /** The next pages to come. */
  expect(block: number, page: number, count: number): void {
    append(this.#expected, block, page, count);
  }

  /** Takes note of bytes that were put into `space`. False: no more may come before `spare`. */
  filled(bytes: number): boolean {
    this.#takeNote(bytes);
    return this.#ring.advance(bytes);
  }

  /** Waits for room after `filled` answered false. */
  spare(): Promise<void> {
    if (this.#spare === null) {
      let resolve = (): void => undefined;
      const promise = new Promise<void>((done) => {
        resolve = done;
      });
      this.#spare = { promise, resolve };
    }
    return this.#spare.promise;
  }

  /** Waits until all pages so far are written. */
  async written(): Promise<void> {
    await this.#ring.finish();
  }

  /** Nothing may come any more. */
  close(): void {
    this.#short.close();
  }

  #onSpare(): void {
    this.#spare?.resolve();
    this.#spare = null;
  }

  async #store(slot: Uint8Array, length: number): Promise<void> {
    const runs = this.#runs;
    this.#runs = [];
    this.#pages = 0;
    this.#bytes = 0;
    if (this.#task.work.kind === "digest") return;
    await admitted(this.#control, this.#task, length);
    if (!(await this.#control.whenPrepared())) return;
    this.#reserve(runs);
    await this.#writeRuns(slot, runs);
  }

  /** Whole pages are looked at as they come, while they are still in the processor's cache. */
  #takeNote(bytes: number): void {
    const { tables } = this;
    const { pageSize } = tables.blocks[0] as MappedBlock;
    const views = tables.hasSums ? this.#viewsOf(this.#ring.current, pageSize) : null;
    this.#bytes += bytes;
    for (let left = Math.floor(this.#bytes / pageSize) - this.#pages; left > 0; ) {
      const run = this.#expected[0] as PageRun;
      const { block, first } = run;
      const count = Math.min(left, run.count);
      tables.setPresent(block, first, count);
      for (let page = 0; views !== null && page < count; page++) {
        const view = views[this.#pages + page] as Buffer;
        if (tables.hasChecksums) tables.setChecksum(block, first + page, crc32(view));
        else tables.setDigest(block, first + page, digestOf(view));
      }
      append(this.#runs, block, first, count);
      this.#pages += count;
      left -= count;
      run.first += count;
      run.count -= count;
      if (run.count === 0) this.#expected.shift();
    }
  }

  #viewsOf(slot: Uint8Array, pageSize: number): readonly Buffer[] {
    let views = this.#views.get(slot);
    if (views === undefined) {
      views = Array.from({ length: slot.length / pageSize }, (_, page) =>
        Buffer.from(slot.buffer, slot.byteOffset + page * pageSize, pageSize),
      );
      this.#views.set(slot, views);
    }
    return views;
  }

  #reserve(runs: readonly PageRun[]): void {
    const { regions, image, sparse } = this.#task;
    if (!sparse) return;
    this.#regions ??= new Regions(regions, image.fd, this.tables);
    for (const { block, first, count } of runs) {
      if (this.tables.blocks[block]?.pagesOffset !== NOWHERE) this.#regions.reserve(block, first, count);
    }
  }

  async #writeRuns(slot: Uint8Array, runs: readonly PageRun[]): Promise<void> {
    const long: Piece[] = [];
    for (const piece of this.#piecesOf(slot, runs)) {
      if (!this.#short.write(piece.bytes, piece.offset)) long.push(piece);
    }
    const pieces = long.values();
    const lane = async (): Promise<void> => {
      for (const { bytes, offset } of pieces) await this.#disk.write(this.#task.image.fd, bytes, offset);
    };
    await Promise.all(Array.from({ length: Math.min(LANES, long.length) }, lane));
  }

  *#piecesOf(slot: Uint8Array, runs: readonly PageRun[]): Generator<Piece, void, undefined> {
    let from = 0;
    for (const { block, first, count } of runs) {
      const { pagesOffset, pageSize } = this.tables.blocks[block] as MappedBlock;
      const bytes = slot.subarray(from, from + count * pageSize);
      if (pagesOffset !== NOWHERE) yield { bytes, offset: pagesOffset + first * pageSize };
      from += bytes.length;
    }
  }
}

function append(runs: PageRun[], block: number, first: number, count: number): void {
  const last = runs.at(-1);
  if (last?.block === block && last.first + last.count === first) last.count += count;
  else runs.push({ block, first, count });
}
