import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "../channels/handover.ts";
import { MultifdError, toFailure } from "../errors.ts";
import { type ControlBlock, MAX_CONNECTIONS } from "../pool/control-block.ts";
import type { TakenIn } from "../pool/messages.ts";
import type { Arrival } from "./arrival.ts";
import { identityProblem, isEarlyEnd, named, tooFew, withoutMain } from "./channel-set.ts";
import { ReceptionWatch } from "./reception-watch.ts";

const TICK_MS = 100;
const LET_GO_MS = 5000;
/** QEMU connects all channels within milliseconds of each other; on a busy machine some may take longer. */
const QUIET_MS = 500;
const LONGEST_QUIET_MS = 3000;

export interface ReceptionPlan {
  readonly control: ControlBlock;
  /** multifd channels that must come; any number when undefined. */
  readonly channels: number | undefined;
  readonly connectTimeoutMs: number;
  readonly stallTimeoutMs: number;
  /** Once, when QEMU has come and before the first byte is written. */
  readonly prepare: () => Promise<void>;
  /** Runs the drain task of a connection on the pool. */
  readonly drain: (number: number, connection: Connection) => Promise<TakenIn>;
  /** Accepts what waits in the listening socket's backlog. */
  readonly drainBacklog: () => Promise<void>;
  /** How many connections were turned away because of who made them. */
  readonly refused: () => number;
  /** Called about ten times a second and once at the end. */
  readonly onTick: () => void;
  readonly onIdentified: (identity: "main" | number) => void;
  readonly onIgnored: (number: number) => void;
}

/**
 * Receives QEMU's channels: hands each to a worker as soon as it connects, and ends when main has ended, the
 * backlog is empty and every connection is drained. The first failure ends all of them.
 */
export class Reception {
  readonly #plan: ReceptionPlan;
  readonly #arrivals: Arrival[] = [];
  readonly #tasks: Promise<void>[] = [];
  readonly #watch: ReceptionWatch;
  readonly #ticker: NodeJS.Timeout;
  /** Connections that came after the failure. */
  readonly #late: Connection[] = [];
  #lastAcceptAt = Number.NEGATIVE_INFINITY;
  /** Set by the failure: nothing is closed before it resolves. */
  #quiet: Promise<void> | null = null;
  #failure: MultifdError | null = null;
  #settled = false;
  #resolve!: (drained: readonly TakenIn[]) => void;
  #reject!: (error: MultifdError) => void;
  readonly #result: Promise<readonly TakenIn[]>;

  constructor(plan: ReceptionPlan) {
    this.#plan = plan;
    this.#watch = new ReceptionWatch(plan);
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#result.catch(() => undefined);
    this.#ticker = setInterval(() => this.#tick(), TICK_MS);
    void this.#prepare();
  }

  /** What was drained, once everything is; rejects with the first failure, after all workers have let go. */
  get result(): Promise<readonly TakenIn[]> {
    return this.#result;
  }

  /** The connections so far, main included. */
  get arrivals(): readonly Arrival[] {
    return this.#arrivals;
  }

  /** Whether a connection is there that has not said what it is. */
  get waitsForNames(): boolean {
    const { control } = this.#plan;
    return this.#present.some(
      ({ number, drained }) => drained === null && control.identity(number) === "unknown",
    );
  }

  get #present(): readonly Arrival[] {
    return this.#arrivals.filter((arrival) => !arrival.ignored);
  }

  accept(connection: Connection): void {
    if (this.#settled) {
      connection.close(false);
      return;
    }
    this.#lastAcceptAt = performance.now();
    if (this.#failure !== null) {
      this.#late.push(connection);
      return;
    }
    const number = this.#arrivals.length;
    // Not the expected number: until it speaks, a connection may be one that only looks whether somebody listens.
    if (number === MAX_CONNECTIONS) {
      this.#late.push(connection);
      const text = `more than ${MAX_CONNECTIONS} connections came: only one QEMU may use this socket`;
      this.fail(new MultifdError("CHANNEL_SET", text, { connections: number + 1 }));
      return;
    }
    const arrival: Arrival = {
      number,
      connection,
      acceptedAt: performance.now(),
      late: this.#plan.control.parties > 0,
      identity: "unknown",
      drained: null,
      ignored: false,
    };
    this.#arrivals.push(arrival);
    this.#plan.control.connections = this.#arrivals.length;
    this.#tasks.push(this.#serve(arrival));
  }

  /** Ends every connection; the first failure is the one that counts. */
  fail(error: MultifdError): void {
    if (this.#failure !== null || this.#settled) return;
    this.#failure = error;
    this.#plan.control.setGiveUp();
    this.#quiet = this.#untilQuiet();
    void this.#letGo(this.#quiet);
  }

  /**
   * Waits until QEMU, if it is just connecting, has connected all its channels. A QEMU 7.2 of which one is refused,
   * or whose main channel breaks meanwhile, can never migrate again ("duplicate yank instance").
   */
  async #untilQuiet(): Promise<void> {
    await this.#plan.drainBacklog();
    const deadline = performance.now() + LONGEST_QUIET_MS;
    while (performance.now() < Math.min(deadline, this.#lastAcceptAt + QUIET_MS)) await sleep(TICK_MS);
  }

  async #letGo(quiet: Promise<void>): Promise<void> {
    await quiet;
    for (const connection of this.#late) connection.close(false);
    for (const arrival of this.#arrivals) arrival.connection.kill();
    await this.#settle();
  }

  /** Prepares the target when the first channel has said what it is; workers write nothing before. */
  async #prepare(): Promise<void> {
    const { control, prepare } = this.#plan;
    await control.until(() => control.identified > 0 || this.#failure !== null || this.#settled);
    if (this.#failure !== null || this.#settled) return;
    try {
      await prepare();
      control.setPrepared();
    } catch (error) {
      const { code, message, details } = toFailure(error);
      this.fail(new MultifdError(code, message, details, error));
    }
  }

  async #serve(arrival: Arrival): Promise<void> {
    try {
      arrival.drained = await this.#plan.drain(arrival.number, arrival.connection);
      this.#lookAt(arrival);
    } catch (error) {
      this.#onDrainFailed(arrival, error);
    } finally {
      await this.#quiet;
      arrival.connection.close(this.#plan.control.isTaken(arrival.number));
    }
    if (this.#failure === null) await this.#finishIfDone();
  }

  #onDrainFailed(arrival: Arrival, error: unknown): void {
    // Two that say they are the same may trip over each other before anybody has looked.
    for (const other of this.#arrivals) this.#lookAt(other);
    if (this.#plan.control.moved(arrival.number) === 0 && isEarlyEnd(error)) {
      arrival.ignored = true;
      this.#plan.onIgnored(arrival.number);
    } else {
      this.fail(named(arrival.identity, arrival.number, error));
    }
  }

  #tick(): void {
    for (const arrival of this.#arrivals) this.#lookAt(arrival);
    const problem = this.#watch.look(this.#arrivals);
    if (problem !== null) this.fail(problem);
    this.#plan.onTick();
  }

  #lookAt(arrival: Arrival): void {
    if (arrival.identity !== "unknown") return;
    const identity = this.#plan.control.identity(arrival.number);
    if (identity === "unknown") return;
    arrival.identity = identity;
    const problem = identityProblem(arrival, this.#arrivals, this.#plan.channels);
    if (problem !== null) this.fail(problem);
    else this.#plan.onIdentified(identity);
  }

  async #finishIfDone(): Promise<void> {
    if (this.#present.some((arrival) => arrival.drained === null)) return;
    // QEMU reports success when its last byte is in a socket buffer: a channel may still wait to be accepted.
    await this.#plan.drainBacklog();
    const present = this.#present;
    if (present.length === 0 || present.some((arrival) => arrival.drained === null)) return;
    if (!present.some((arrival) => arrival.identity === "main")) {
      this.fail(withoutMain(present.length, "ended"));
      return;
    }
    const expected = this.#plan.channels;
    if (expected !== undefined && present.length !== expected + 1) {
      this.fail(
        new MultifdError("CHANNEL_SET", tooFew(present.length - 1, expected), {
          expected,
          connected: present.length - 1,
        }),
      );
      return;
    }
    await this.#settle();
  }

  async #settle(): Promise<void> {
    if (this.#settled) return;
    this.#settled = true;
    clearInterval(this.#ticker);
    // Tasks of a failed run end because their connections were killed; a worker that hangs is ended with its pool.
    if (this.#failure !== null)
      await Promise.race([Promise.all(this.#tasks), sleep(LET_GO_MS, null, { ref: false })]);
    this.#plan.onTick();
    if (this.#failure !== null) this.#reject(this.#failure);
    else this.#resolve(this.#arrivals.flatMap((arrival) => arrival.drained ?? []));
  }

  /** To be called at the end whatever happened: a run that never got a connection has nothing to settle it. */
  close(): void {
    this.#settled = true;
    clearInterval(this.#ticker);
  }
}
