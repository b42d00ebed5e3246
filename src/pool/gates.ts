import type { ControlBlock } from "./control-block.ts";
import type { FeedTask } from "./messages.ts";

/**
 * What main waits for: it goes in lockstep with the channels. Its barrier k is held back until every channel has written
 * its SYNC k. A destination that waits at a barrier for a SYNC that never comes is dead, its monitor included; so it must
 * never be led there. In the same way main's bytes behind the RAM are held back until the peer has read every channel:
 * only they make the destination run.
 */
export class Lockstep {
  readonly #control: ControlBlock;
  readonly #channels: number;

  constructor(control: ControlBlock, channels: number) {
    this.#control = control;
    this.#channels = channels;
  }

  /** Waits until every channel has written `count` SYNC packets; false: all is given up. */
  async syncsSent(count: number): Promise<boolean> {
    const control = this.#control;
    await control.until(() => control.giveUp || this.#allSent(count));
    return !control.giveUp;
  }

  /** Waits until the peer has read every channel; false: all is given up. */
  async allDelivered(): Promise<boolean> {
    const control = this.#control;
    await control.until(() => control.giveUp || control.delivered === this.#channels);
    return !control.giveUp;
  }

  /** Main is connection 0 of a restore and channel i is connection i + 1. */
  #allSent(count: number): boolean {
    for (let connection = 1; connection <= this.#channels; connection++) {
      if (this.#control.syncsSent(connection) < count) return false;
    }
    return true;
  }
}

/** How far a stored channel may be sent by now. */
export class Gates {
  readonly #task: FeedTask;
  readonly #control: ControlBlock;
  readonly #lockstep: Lockstep;
  /** Index of the first mark that was not passed. */
  #next = 0;

  constructor(task: FeedTask, control: ControlBlock) {
    this.#task = task;
    this.#control = control;
    this.#lockstep = new Lockstep(control, task.multifdChannels);
  }

  /** Waits until the byte at `position` may be sent; answers up to where, or `position` itself when all is given up. */
  async open(position: number): Promise<number> {
    const { record } = this.#task;
    if (record.kind === "multifd") return this.#nextMark(position) ?? record.length;
    while (this.#mark <= position) {
      if (!(await this.#lockstep.syncsSent(this.#next + 1))) return position;
      this.#next++;
    }
    const tail = record.tail ?? record.length;
    if (position >= tail) return (await this.#lockstep.allDelivered()) ? record.length : position;
    return Math.min(this.#mark, tail);
  }

  /** Takes note that everything before `position` was written to the socket. */
  passed(position: number): void {
    const { record, connection } = this.#task;
    if (record.kind === "main") return;
    const before = this.#next;
    while (this.#mark <= position) this.#next++;
    if (this.#next > before) this.#control.setSyncsSent(connection, this.#next);
  }

  get #mark(): number {
    return this.#task.record.marks[this.#next] ?? Number.POSITIVE_INFINITY;
  }

  #nextMark(position: number): number | null {
    const mark = this.#mark;
    return mark > position && mark !== Number.POSITIVE_INFINITY ? mark : null;
  }
}
