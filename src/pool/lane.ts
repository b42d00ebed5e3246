import { ControlBlock } from "./control-block.ts";
import type { Fed, OutgoingTask } from "./messages.ts";
import { Outlet } from "./outlet.ts";
import { paced, turnBytes } from "./pacer.ts";

/** One channel on its way to the destination, wherever its bytes come from. */
export class Lane {
  readonly control: ControlBlock;
  readonly #task: OutgoingTask;
  readonly #outlet: Outlet;
  /** Where main ends; the other channels may not close before it does. */
  readonly #mainEnd: number | null;
  #position: number;

  constructor(task: OutgoingTask, mainEnd: number | null) {
    this.#task = task;
    this.#mainEnd = mainEnd;
    this.#position = task.alreadySent;
    this.control = new ControlBlock(task.control);
    this.control.take(task.connection);
    this.#outlet = new Outlet(task.socketFd, () => this.control.tailSent);
  }

  /** Bytes that the kernel has taken. */
  get position(): number {
    return this.#position;
  }

  /** Sends the parts one behind the other, at the rate that is allowed. Answers false when the run was given up. */
  async send(parts: readonly Uint8Array[]): Promise<boolean> {
    const { rate, connection } = this.#task;
    for (const { turn, length } of turns(parts, turnBytes(rate))) {
      await this.unlessLost(paced(this.control, length, rate));
      if (this.control.giveUp) return false;
      // Said before the bytes go: once the peer has the last of them, it may close at any moment.
      if (this.#position + length === this.#mainEnd) this.control.setTailSent();
      await this.#outlet.send(turn, this.#position);
      this.#position += length;
      this.control.setMoved(connection, this.#position);
    }
    return true;
  }

  /** Waits for something, but no longer than the peer is there. */
  unlessLost<T>(work: Promise<T>): Promise<T> {
    return this.#outlet.unlessLost(work);
  }

  /**
   * Ends the lane. A channel stays open until everything is delivered: one that closes early fails the whole load.
   * @param whole all of it was sent; false: the run was given up
   */
  async end(whole: boolean): Promise<void> {
    if (!whole) return this.#outlet.ended();
    await this.#outlet.delivered(() => this.control.giveUp);
    if (this.#mainEnd !== null) return;
    this.control.addDelivered();
    await this.unlessLost(this.control.until(() => this.control.finished || this.control.giveUp));
    if (this.control.giveUp) await this.#outlet.ended();
  }

  close(): void {
    this.#outlet.close();
  }
}

/**
 * Runs one channel from its connection to its end. Resolves when the destination has read everything, or has ended after
 * all was given up.
 * @param mainEnd length of main; null for the other channels
 * @param sendAll answers false when the run was given up before the end
 */
export async function alongLane(
  task: OutgoingTask,
  mainEnd: number | null,
  sendAll: (lane: Lane) => Promise<boolean>,
): Promise<Fed> {
  const lane = new Lane(task, mainEnd);
  const started = performance.now();
  try {
    const whole = await sendAll(lane);
    const activeMs = performance.now() - started;
    await lane.end(whole);
    return { bytes: lane.position, activeMs };
  } finally {
    lane.close();
  }
}

/** Cuts what is to be sent so that no turn has more than `most` bytes. */
function* turns(
  parts: readonly Uint8Array[],
  most: number,
): Generator<{ turn: Uint8Array[]; length: number }, void, undefined> {
  let turn: Uint8Array[] = [];
  let length = 0;
  for (const part of parts) {
    for (let at = 0; at < part.byteLength; ) {
      const piece = part.subarray(at, Math.min(part.byteLength, at + most - length));
      turn.push(piece);
      length += piece.byteLength;
      at += piece.byteLength;
      if (length < most) continue;
      yield { turn, length };
      [turn, length] = [[], 0];
    }
  }
  if (length > 0) yield { turn, length };
}
