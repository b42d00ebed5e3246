import { MultifdError } from "../src/errors.ts";
import { ChannelWalker } from "../src/formats/migration/channel-walker.ts";
import { crc32 } from "../src/io/crc32.ts";
import { padded, type WriteAt, writeAt } from "../src/io/file-io.ts";
import { Inlet } from "../src/io/inlet.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { type Ring, type RingMaker, WriteRing } from "../src/io/write-ring.ts";
import { answering } from "../src/pool/answer.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import { ExtentWriter } from "../src/pool/extent-writer.ts";
import type { Answer, Drained, DrainTask } from "../src/pool/messages.ts";
import { paced } from "../src/pool/pacer.ts";

const arena = new SlabArena();

/** Pool task: drains one of QEMU's connections into its own extents of the image. */
export function drain(task: DrainTask): Promise<Answer<Drained>> {
  return answering(() => drainChannel(task, writeAt));
}

/**
 * Reads the connection to its end. Rejects when the bytes are no migration stream or the disk fails.
 * @param write,makeRing the disk and the ring in front of it; tests put others there
 */
export async function drainChannel(
  task: DrainTask,
  write: WriteAt,
  makeRing: RingMaker = (...parts) => new WriteRing(...parts),
): Promise<Drained> {
  const slots = Array.from({ length: task.slots }, () => arena.take(task.blockBytes));
  const drained = await new ChannelDrain(task, write, slots, makeRing).run();
  arena.give(slots);
  return drained;
}

/** Bytes go socket -> slot -> disk, and are walked and checksummed on the way, while they are still in the cache. */
class ChannelDrain {
  readonly #task: DrainTask;
  readonly #write: WriteAt;
  readonly #control: ControlBlock;
  readonly #extents: ExtentWriter;
  readonly #walker = new ChannelWalker();
  readonly #checksums: number[] = [];
  readonly #ring: Ring;
  readonly #inlet: Inlet;
  /** CRC-32 of what the current slot holds so far. */
  #crc = 0;
  #received = 0;
  #firstByteAt = 0;

  constructor(task: DrainTask, write: WriteAt, slots: readonly Uint8Array[], makeRing: RingMaker) {
    this.#task = task;
    this.#write = write;
    this.#control = new ControlBlock(task.control);
    this.#extents = new ExtentWriter(this.#control, task);
    this.#ring = makeRing(
      slots,
      (slot, length) => this.#store(slot, length),
      () => this.#inlet.resume(),
      (error) => this.#inlet.fail(error),
    );
    this.#control.take(task.connection);
    this.#inlet = new Inlet(
      task.socketFd,
      () => this.#ring.space(),
      (bytes) => this.#accept(bytes),
    );
  }

  async run(): Promise<Drained> {
    const { blockBytes, checksum } = this.#task;
    await this.#inlet.ended;
    const activeMs = this.#received === 0 ? 0 : performance.now() - this.#firstByteAt;
    // Without an identity nothing was written and nothing will be: finish() says why.
    if (this.#walker.identity !== null) await this.#ring.finish();
    return {
      summary: this.#walker.finish(),
      blockBytes,
      extents: this.#extents.extents,
      claimedEnd: this.#extents.claimedEnd,
      checksums: checksum ? Uint32Array.from(this.#checksums) : null,
      activeMs,
    };
  }

  /** Takes note of bytes that were read into the ring; false stops reading until the ring has room. */
  #accept(bytes: number): boolean {
    // Main keeps the connection open a little longer; QEMU must not complete meanwhile what is lost already.
    if (this.#control.giveUp) throw new MultifdError("CANCELLED", "the run was given up");
    const chunk = this.#ring.latest(bytes);
    if (this.#received === 0) this.#firstByteAt = performance.now();
    this.#received += bytes;
    this.#control.setMoved(this.#task.connection, this.#received);
    try {
      this.#walker.push(chunk);
    } finally {
      // Also when the first bytes are refused: the error then names the channel.
      this.#identify();
    }
    this.#tellRam();
    if (this.#task.checksum) this.#crc = crc32(chunk, this.#crc);
    return this.#ring.advance(bytes);
  }

  #identify(): void {
    const { connection } = this.#task;
    const { identity } = this.#walker;
    if (this.#walker.main?.returnPath && !this.#control.returnPath) this.#control.setReturnPath();
    if (identity === null || this.#control.identity(connection) !== "unknown") return;
    this.#control.identify(connection, identity.kind === "main" ? "main" : identity.id);
  }

  /** Main lists the RAM blocks before the first page: early enough to warn of a disk that may be too small. */
  #tellRam(): void {
    const blocks = this.#walker.main?.ramBlocks ?? null;
    if (blocks === null || this.#control.ramBytes !== 0) return;
    this.#control.ramBytes = blocks.reduce((sum, block) => sum + block.usedLength, 0);
  }

  /** Writes a slot to its place. Its checksum was taken already: from here on the slot belongs to the write. */
  async #store(slot: Uint8Array, length: number): Promise<void> {
    const { checksum, maxBytes, rate, image } = this.#task;
    if (checksum) this.#checksums.push(this.#crc);
    this.#crc = 0;
    const offset = this.#extents.place(length);
    const stored = this.#control.addStored(length);
    if (maxBytes !== null && stored > maxBytes) throw tooLarge(maxBytes);
    await paced(this.#control, length, rate);
    const whole = padded(length);
    // What an earlier block left behind in the slot has no business in the file.
    slot.fill(0, length, whole);
    // An image in place is marked as unfinished first; that waits for a QEMU, so that a mere look at the socket costs nothing.
    await this.#control.until(() => this.#control.prepared || this.#control.giveUp);
    if (!this.#control.prepared) return;
    await this.#write(image.fd, slot.subarray(0, whole), image.base + offset);
  }
}

function tooLarge(maxBytes: number): MultifdError {
  const text = `the migration streams grew beyond --max-bytes ${maxBytes}: stop the VM before saving it, or allow more`;
  return new MultifdError("LIMIT_EXCEEDED", text, { maxBytes });
}
