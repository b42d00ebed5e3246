import { crc32 } from "node:zlib";
import { NOWHERE } from "../../formats/mapped-ram/layout.ts";
import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import type { WriteAt } from "../../io/file-io.ts";
import { WriteRing } from "../../io/write-ring.ts";
import type { ControlBlock } from "../control-block.ts";
import type { PlaceTask } from "../messages.ts";
import { admitted } from "./admitted.ts";
import { digestOf, RamTables } from "./ram-tables.ts";
import { Regions } from "./regions.ts";

/** A page number fits into the low part: the tables hold no more than 2^30 pages. */
const BLOCK_STEP = 2 ** 32;

/** A run of bytes of a slot that stays one run in the file. */
interface Run {
  readonly from: number;
  readonly until: number;
  readonly offset: number;
}

/**
 * Puts pages to their places: whoever reads them names each page with `expect`, fills `space` with their bytes in the
 * same order, and says how many came. Pages that lie side by side go out in one write.
 */
export class PageWriter {
  readonly #task: PlaceTask;
  readonly #control: ControlBlock;
  readonly #write: WriteAt;
  readonly #ring: WriteRing;
  readonly #fail: (error: unknown) => void;
  /** block × 2^32 + page, in the order in which their bytes come; those of slots on their way are gone from it. */
  readonly #expected: number[] = [];
  #tables: RamTables | null = null;
  #regions: Regions | null = null;
  #spare: { readonly promise: Promise<void>; readonly resolve: () => void } | null = null;

  constructor(
    task: PlaceTask,
    control: ControlBlock,
    write: WriteAt,
    slots: readonly Uint8Array[],
    fail: (error: unknown) => void,
  ) {
    this.#task = task;
    this.#control = control;
    this.#write = write;
    this.#fail = fail;
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

  /** The next page to come. */
  expect(block: number, page: number): void {
    this.#expected.push(block * BLOCK_STEP + page);
  }

  /** Takes note of bytes that were put into `space`. False: no more may come before `spare`. */
  filled(bytes: number): boolean {
    return this.#ring.advance(bytes);
  }

  /** Writes the pages that are there, all of them whole. False as for `filled`. */
  launch(): boolean {
    return this.#ring.launch();
  }

  /** Waits for room after `filled` or `launch` answered false. */
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

  #onSpare(): void {
    this.#spare?.resolve();
    this.#spare = null;
  }

  async #store(slot: Uint8Array, length: number): Promise<void> {
    const { tables } = this;
    const pageSize = tables.blocks[0]?.pageSize ?? length;
    const pages = this.#expected.splice(0, length / pageSize);
    this.#takeNote(slot, pages, pageSize);
    await admitted(this.#control, this.#task, length);
    const { image, work } = this.#task;
    if (work.kind === "digest") return;
    await Promise.all(
      runsOf(pages, pageSize, tables.blocks).map(({ from, until, offset }) => {
        this.#reserve(offset, until - from);
        return this.#write(image.fd, slot.subarray(from, until), offset);
      }),
    );
  }

  /** Checksums are taken while the pages are still in the processor's cache. */
  #takeNote(slot: Uint8Array, pages: readonly number[], pageSize: number): void {
    const { tables } = this;
    for (const [index, key] of pages.entries()) {
      const block = Math.floor(key / BLOCK_STEP);
      const page = key % BLOCK_STEP;
      const bytes = slot.subarray(index * pageSize, (index + 1) * pageSize);
      if (tables.hasChecksums) tables.setChecksum(block, page, crc32(bytes));
      if (tables.hasDigests) tables.setDigest(block, page, digestOf(bytes));
      tables.setPresent(block, page);
    }
  }

  #reserve(offset: number, length: number): void {
    const { regions, image, sparse } = this.#task;
    if (!sparse) return;
    this.#regions ??= regionsOf(regions, image.fd, this.tables.blocks);
    this.#regions.reserve(offset, offset + length);
  }
}

function regionsOf(bits: SharedArrayBuffer, fd: number, blocks: readonly MappedBlock[]): Regions {
  const placed = blocks.filter(({ pagesOffset }) => pagesOffset !== NOWHERE);
  const first = placed[0] as MappedBlock;
  const last = placed.at(-1) as MappedBlock;
  return new Regions(bits, fd, first.pagesOffset, last.pagesOffset + last.usedLength);
}

function runsOf(pages: readonly number[], pageSize: number, blocks: readonly MappedBlock[]): Run[] {
  const runs: Run[] = [];
  for (let first = 0; first < pages.length; ) {
    const key = pages[first] as number;
    let next = first + 1;
    while (pages[next] === key + next - first) next++;
    const { pagesOffset } = blocks[Math.floor(key / BLOCK_STEP)] as MappedBlock;
    const offset = pagesOffset + (key % BLOCK_STEP) * pageSize;
    if (pagesOffset !== NOWHERE) runs.push({ from: first * pageSize, until: next * pageSize, offset });
    first = next;
  }
  return runs;
}
