import { once } from "node:events";
import type { Connection } from "../channels/handover.ts";
import { MultifdError, toFailure } from "../errors.ts";
import type { ControlBlock } from "../pool/control-block.ts";
import type { Fed } from "../pool/messages.ts";
import { isPacing } from "../pool/pacer.ts";
import type { ChannelName } from "./events.ts";
import { isOverdue, neverTaken } from "./handover-watch.ts";
import { labelOf } from "./image-facts.ts";

const TICK_MS = 100;
/** A destination whose main channel is cut ends its load, and with it all channels, well within this. */
const FAREWELL_MS = 3000;
const LET_GO_MS = 5000;
/** What QEMU reads of a new connection before it begins to load, with the kernel's own overhead. */
const INIT_ALLOWANCE = 4096;
/** More than this of a connection does not fit into socket buffers: somebody reads it. */
const BUFFERED = 16 * 1024 * 1024;

export interface DeliveryPlan {
  readonly control: ControlBlock;
  /** How many connections make the set, main included. */
  readonly connections: number;
  /** 0 is for ever. */
  readonly stallTimeoutMs: number;
  /** How long the destination may take to begin reading once all channels are connected. */
  readonly connectTimeoutMs: number;
  /** Runs the feed task of a connection on the pool. */
  readonly feed: (number: number, connection: Connection) => Promise<Fed>;
  readonly onTick: () => void;
}

interface Line {
  readonly channel: ChannelName;
  readonly connection: Connection;
  fed: Fed | null;
}

/**
 * Feeds all channels to the destination at once and sees them through. The first failure gives all of them up in the
 * one way that a loading QEMU survives with a clear error: main is cut first, and the channels stay open until QEMU
 * has closed them.
 */
export class Delivery {
  readonly #plan: DeliveryPlan;
  readonly #lines: Line[] = [];
  readonly #tasks: Promise<void>[] = [];
  readonly #ticker: NodeJS.Timeout;
  readonly #failing = new AbortController();
  #failure: MultifdError | null = null;
  #givingUp: Promise<void> | null = null;
  /** When the feeding began; null before. */
  #startedAt: number | null = null;
  #begun = false;
  #mostOutstanding = 0;
  #moved = -1;
  #movedAt = performance.now();

  constructor(plan: DeliveryPlan) {
    this.#plan = plan;
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
  }

  /** Aborts with the first failure as its reason: whoever still connects must stop then. */
  get failed(): AbortSignal {
    return this.#failing.signal;
  }

  /** Takes a connection over whose first bytes were sent. Main must come first. */
  add(channel: ChannelName, connection: Connection): void {
    if (this.#failure !== null) {
      connection.close(false);
      return;
    }
    this.#lines.push({ channel, connection, fed: null });
  }

  /**
   * Feeds all, once all are connected: QEMU reads nothing before, and one that lacks channels when a feed fails would wait for
   * them for ever.
   */
  begin(): void {
    if (this.#failure !== null) return;
    this.#startedAt = performance.now();
    for (const [number, line] of this.#lines.entries()) this.#tasks.push(this.#serve(line, number));
  }

  /** Ends the delivery; the first failure is the one that counts. */
  fail(error: MultifdError): void {
    if (this.#failure !== null) return;
    this.#failure = error;
    this.#givingUp = this.#giveUp();
    this.#failing.abort(error);
  }

  /** Waits until everything is delivered. Rejects with the first failure, after the destination was let down gently. */
  async finish(): Promise<readonly { channel: ChannelName; fed: Fed }[]> {
    try {
      await Promise.race([Promise.all(this.#tasks), this.#onFailure()]);
      await this.#givingUp;
      if (this.#failure !== null) throw this.#failure;
    } finally {
      clearInterval(this.#ticker);
    }
    this.#plan.onTick();
    return this.#lines.map(({ channel, fed }) => ({ channel, fed: fed as Fed }));
  }

  #onFailure(): Promise<unknown> {
    return this.failed.aborted ? Promise.resolve() : once(this.failed, "abort");
  }

  async #serve(line: Line, number: number): Promise<void> {
    try {
      line.fed = await this.#plan.feed(number, line.connection);
      // Everything behind main's last byte is delivered once main is: the channels may close now.
      if (line.channel === "main" && this.#failure === null) this.#plan.control.setFinished();
    } catch (error) {
      this.fail(named(line.channel, error));
    }
    // The connection itself stays open behind the kill switch until the end: see #giveUp.
    if (this.#failure === null) line.connection.close(this.#plan.control.isTaken(number));
  }

  async #giveUp(): Promise<void> {
    this.#plan.control.setGiveUp();
    this.#lines[0]?.connection.kill();
    const all = Promise.all(this.#tasks);
    // With a part of its channels QEMU does not begin to load, and so would never notice that main was cut.
    if (this.#lines.length === this.#plan.connections) await within(all, FAREWELL_MS);
    for (const line of this.#lines) line.connection.kill();
    await within(all, LET_GO_MS);
    for (const [number, line] of this.#lines.entries())
      line.connection.close(this.#plan.control.isTaken(number));
  }

  #tick(): void {
    this.#plan.onTick();
    if (this.#failure !== null) return;
    const now = performance.now();
    const since = this.#startedAt;
    if (since !== null && isOverdue(since, now)) {
      const lost = this.#lines.findIndex((_line, number) => !this.#plan.control.isTaken(number));
      if (lost >= 0) this.fail(neverTaken(lost));
    }
    this.#watchStall(now);
    this.#watchBeginning(now);
  }

  /** A destination that waits for more channels than there are reads nothing, and says nothing. */
  #watchBeginning(now: number): void {
    if (this.#begun || this.#lines.length < this.#plan.connections) return;
    const outstanding = this.#lines.reduce((sum, line) => sum + line.connection.outstanding, 0);
    this.#mostOutstanding = Math.max(this.#mostOutstanding, outstanding);
    const read = this.#mostOutstanding - outstanding;
    this.#begun = read > INIT_ALLOWANCE * this.#lines.length || this.#moved > BUFFERED * this.#lines.length;
    if (this.#begun || now - this.#movedAt < this.#plan.connectTimeoutMs) return;
    const text = `the destination has read nothing for ${this.#plan.connectTimeoutMs / 1000} s although all ${this.#lines.length} connections are made: it waits for more channels than there are, or hangs; end it, and compare its multifd-channels with inspect, or with --channels`;
    this.fail(new MultifdError("CONNECT_TIMEOUT", text, { connections: this.#lines.length }));
  }

  #watchStall(now: number): void {
    const moved = this.#lines.reduce((sum, _line, number) => sum + this.#plan.control.moved(number), 0);
    if (moved !== this.#moved || isPacing(this.#plan.control)) {
      this.#moved = moved;
      this.#movedAt = now;
    } else if (this.#plan.stallTimeoutMs > 0 && now - this.#movedAt > this.#plan.stallTimeoutMs) {
      const text = `the destination took no byte on any channel for ${this.#plan.stallTimeoutMs / 1000} s: it hangs, or waits for something else`;
      this.fail(new MultifdError("STALLED", text, { bytes: moved }));
    }
  }
}

/** Waits for work that never fails, but only so long; no timer outlives it and keeps the process alive. */
function within(work: Promise<unknown>, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    void work.then(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

function named(channel: ChannelName, error: unknown): MultifdError {
  const { code, message, details } = toFailure(error);
  return new MultifdError(code, `${labelOf(channel)}: ${message}`, { channel, ...details }, error);
}
