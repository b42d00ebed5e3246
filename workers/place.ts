import { MultifdError } from "../src/errors.ts";
import { ChannelWalker } from "../src/formats/migration/channel-walker.ts";
import { type WriteAt, writeAt } from "../src/io/file-io.ts";
import { Inlet } from "../src/io/inlet.ts";
import { alignedBuffer, SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import type { Answer, Placed, PlaceTask } from "../src/pool/messages.ts";
import { type Barriers, SharedBarriers } from "../src/pool/placing/barriers.ts";
import { Hold } from "../src/pool/placing/hold.ts";
import { PacketPlacer } from "../src/pool/placing/packet-placer.ts";
import { type Disk, PageWriter } from "../src/pool/placing/page-writer.ts";
import { RecordPlacer } from "../src/pool/placing/record-placer.ts";

/** Main is parsed out of this, as much at a time. */
const MAIN_BYTES = 256 * 1024;

const arena = new SlabArena();

/** Pool task: puts the pages of one of QEMU's connections to their places in the image. */
export function place(task: PlaceTask): Promise<Answer<Placed>> {
  return answering(() => placeChannel(task, { write: writeAt, cachesShortRuns: true }));
}

export type BarrierMaker = (task: PlaceTask, control: ControlBlock, writer: PageWriter) => Barriers;

/**
 * Reads the connection to its end. Rejects when the bytes are no migration stream, hold what cannot be placed, or the disk
 * fails.
 * @param disk,makeBarriers the disk, and how connections wait for each other; tests put others there
 */
export async function placeChannel(
  task: PlaceTask,
  disk: Disk,
  makeBarriers: BarrierMaker = ({ connection }, ...parts) => new SharedBarriers(connection, ...parts),
): Promise<Placed> {
  const slots = Array.from({ length: task.slots }, () => arena.take(task.blockBytes));
  const placed = await new ChannelPlacing(task, disk, slots, makeBarriers).run();
  arena.give(slots);
  return placed;
}

class ChannelPlacing {
  readonly #task: PlaceTask;
  readonly #control: ControlBlock;
  readonly #walker: ChannelWalker;
  readonly #writer: PageWriter;
  readonly #packets: PacketPlacer;
  readonly #records: RecordPlacer;
  readonly #hold: Hold;
  readonly #inlet: Inlet;
  #mainBuffer: Uint8Array | null = null;
  /** Where the next bytes go. */
  #space: Uint8Array = new Uint8Array(0);
  #received = 0;
  #firstByteAt = 0;

  constructor(task: PlaceTask, disk: Disk, slots: readonly Uint8Array[], makeBarriers: BarrierMaker) {
    const control = new ControlBlock(task.control);
    const fail = (error: unknown): void => this.#inlet.fail(error);
    // An image in place is marked as unfinished first; that waits for a QEMU, so that a mere look at the socket costs nothing.
    const prepared: WriteAt = async (fd, bytes, position) => {
      if (await control.whenPrepared()) await disk.write(fd, bytes, position);
    };
    this.#task = task;
    this.#control = control;
    this.#hold = new Hold(() => this.#goOn(), fail);
    this.#writer = new PageWriter(task, control, disk, slots, fail);
    const barriers = makeBarriers(task, control, this.#writer);
    this.#packets = new PacketPlacer(control, this.#writer, barriers, this.#hold);
    this.#records = new RecordPlacer(task, control, this.#writer, prepared, barriers, this.#hold);
    this.#walker = new ChannelWalker({ packets: this.#packets, records: this.#records });
    control.take(task.connection);
    this.#inlet = new Inlet(
      task.socketFd,
      () => this.#nextSpace(),
      (bytes) => this.#accept(bytes),
    );
  }

  async run(): Promise<Placed> {
    try {
      return await this.#place();
    } finally {
      this.#writer.close();
    }
  }

  async #place(): Promise<Placed> {
    await this.#inlet.ended;
    const activeMs = this.#received === 0 ? 0 : performance.now() - this.#firstByteAt;
    if (this.#walker.identity !== null) await this.#writer.written();
    const summary = this.#walker.finish();
    return { summary, activeMs, main: summary.kind === "main" ? await this.#records.finish() : null };
  }

  #nextSpace(): Uint8Array {
    if (this.#walker.identity?.kind === "main") {
      this.#mainBuffer ??= alignedBuffer(MAIN_BYTES);
      this.#space = this.#mainBuffer;
    } else this.#space = this.#packets.space(this.#walker.wanted);
    return this.#space;
  }

  /** Takes note of bytes that were read; false stops reading until all is free again. */
  #accept(bytes: number): boolean {
    // Main keeps the connection open a little longer; QEMU must not complete meanwhile what is lost already.
    if (this.#control.giveUp) throw new MultifdError("CANCELLED", "the run was given up");
    const chunk = this.#space.subarray(0, bytes);
    if (this.#received === 0) this.#firstByteAt = performance.now();
    this.#received += bytes;
    this.#control.setMoved(this.#task.connection, this.#received);
    this.#packets.filled(bytes);
    try {
      this.#walker.push(chunk);
    } finally {
      // Also when the first bytes are refused: the error then names the channel.
      this.#identify();
    }
    this.#records.settle();
    return !this.#hold.held;
  }

  /** What held the connection is over: first for what was read already. */
  #goOn(): void {
    try {
      if (this.#control.giveUp) throw new MultifdError("CANCELLED", "the run was given up");
      this.#walker.main?.resume();
      this.#records.settle();
    } catch (error) {
      this.#inlet.fail(error);
      return;
    }
    if (!this.#hold.held) this.#inlet.resume();
  }

  #identify(): void {
    const { connection } = this.#task;
    const { identity, main } = this.#walker;
    if (main?.returnPath && !this.#control.returnPath) this.#control.setReturnPath();
    if (main?.ramBlocks && this.#control.ramBytes === 0) {
      this.#control.ramBytes = main.ramBlocks.reduce((sum, block) => sum + block.usedLength, 0);
    }
    if (identity === null || this.#control.identity(connection) !== "unknown") return;
    this.#control.identify(connection, identity.kind === "main" ? "main" : identity.id);
  }
}
