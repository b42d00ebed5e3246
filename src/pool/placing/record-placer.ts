import { MultifdError } from "../../errors.ts";
import {
  layOut,
  layOutBlock,
  type MappedLayout,
  RAM_SECTION_END,
  ramEndSection,
  unsupported,
} from "../../formats/mapped-ram/layout.ts";
import type { RamListed, RecordSink } from "../../formats/migration/record-sink.ts";
import type { RamBlock } from "../../formats/migration/summary.ts";
import type { WriteAt } from "../../io/file-io.ts";
import { lengthen } from "../../io/image-target/durability.ts";
import type { ControlBlock } from "../control-block.ts";
import type { PlacedMain, PlaceTask } from "../messages.ts";
import { admitted } from "./admitted.ts";
import type { Barriers } from "./barriers.ts";
import { Gathered } from "./gathered.ts";
import type { Hold } from "./hold.ts";
import type { PageWriter } from "./page-writer.ts";
import { RamTables } from "./ram-tables.ts";
import { TailWriter } from "./tail-writer.ts";

/** Device state that comes before RAM is small; more than this is not QEMU's. */
const HEAD_LIMIT = 1024 * 1024;

/**
 * Places what main carries: zero pages, in a stream of one channel all pages, and the stream around them, which becomes
 * the mapped-ram file's own.
 */
export class RecordPlacer implements RecordSink {
  readonly #task: PlaceTask;
  readonly #control: ControlBlock;
  readonly #writer: PageWriter;
  readonly #write: WriteAt;
  readonly #hold: Hold;
  readonly #barriers: Barriers;
  readonly #head = new Gathered();
  #layout: MappedLayout | null = null;
  #tail: TailWriter | null = null;
  #block: RamBlock | null = null;
  #number = 0;

  constructor(
    task: PlaceTask,
    control: ControlBlock,
    writer: PageWriter,
    write: WriteAt,
    barriers: Barriers,
    hold: Hold,
  ) {
    this.#task = task;
    this.#control = control;
    this.#writer = writer;
    this.#write = write;
    this.#hold = hold;
    this.#barriers = barriers;
  }

  get held(): boolean {
    return this.#hold.held;
  }

  rest(bytes: Uint8Array): void {
    if (this.#tail !== null) {
      this.#tail.put(bytes);
      return;
    }
    if (this.#head.length + bytes.length > HEAD_LIMIT) {
      throw unsupported(`more than ${HEAD_LIMIT} bytes stand before its RAM`);
    }
    this.#head.put(bytes);
  }

  listed(ram: RamListed): void {
    const { image, capacity, work } = this.#task;
    const { base } = image;
    const layout =
      work.kind === "image"
        ? layOut(base, this.#head.bytes, ram)
        : layOutBlock(base, ram, work.kind === "block" ? work.name : null);
    if (capacity !== null && layout.tailOffset - image.base > capacity) {
      const text = `the image does not fit: it needs more than ${layout.tailOffset - image.base} bytes and its device has ${capacity}; use a larger one, or --format stream`;
      throw new MultifdError("NO_SPACE", text, { capacity });
    }
    try {
      RamTables.publish(this.#task.ram, layout.blocks);
    } catch (error) {
      if (error instanceof RangeError) throw unsupported("it has more than 4 TiB of RAM");
      throw error;
    }
    this.#layout = layout;
    // Of a memory that is taken out, the stream around it is dropped.
    const write: WriteAt =
      work.kind === "image" ? (...what) => this.#writeTail(...what) : async () => undefined;
    this.#tail = new TailWriter(write, image.fd, layout.tailOffset);
    this.#hold.until(this.#makeRoom(layout.tailOffset));
  }

  /** Only then do pages come: where each of them made the file longer, none could be written beside another. */
  async #makeRoom(end: number): Promise<void> {
    const { image, sparse, work } = this.#task;
    if (sparse && work.kind !== "digest" && (await this.#control.whenPrepared())) lengthen(image.fd, end);
    this.#control.setLaidOut();
  }

  sectionEnd(): void {
    this.#tail?.put(RAM_SECTION_END);
  }

  endsWithoutEnd(sectionId: number): void {
    this.#tail?.put(ramEndSection(sectionId));
  }

  zero(block: RamBlock, address: number): void {
    this.#writer.tables.clear(this.#numberOf(block), this.#page(address), 1);
  }

  page(block: RamBlock, address: number): void {
    this.#writer.expect(this.#numberOf(block), this.#page(address), 1);
  }

  pageBytes(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const part = bytes.subarray(at, at + this.#writer.space.length);
      this.#writer.space.set(part);
      at += part.length;
      if (!this.#writer.filled(part.length)) this.#hold.until(this.#writer.spare());
    }
  }

  encoded(what: string): void {
    throw unsupported(`pages are encoded (${what})`);
  }

  barrier(count: number): void {
    this.#hold.until(this.#barriers.arriveAt(count));
  }

  lost(reason: string): void {
    throw unsupported(reason);
  }

  /** To be called after each chunk: what gathered behind the pages goes to disk before more comes. */
  settle(): void {
    if (this.#tail?.full === true) this.#hold.until(this.#tail.drain());
  }

  /** To be called at the stream's end. */
  async finish(): Promise<PlacedMain | null> {
    if (this.#tail === null || this.#layout === null) return null;
    return { layout: this.#layout, tail: await this.#tail.finish() };
  }

  async #writeTail(fd: number, bytes: Uint8Array, position: number): Promise<void> {
    await admitted(this.#control, this.#task, bytes.length);
    await this.#write(fd, bytes, position);
  }

  #numberOf(block: RamBlock): number {
    if (block !== this.#block) {
      this.#block = block;
      this.#number = this.#writer.tables.numberOf(block.name) as number;
    }
    return this.#number;
  }

  #page(address: number): number {
    return address / (this.#writer.tables.blocks[0] as { pageSize: number }).pageSize;
  }
}
