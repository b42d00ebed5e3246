import { MultifdError } from "../errors.ts";
import type { ControlBlock } from "../pool/control-block.ts";
import { isPacing } from "../pool/pacer.ts";
import type { Arrival } from "./arrival.ts";
import { withoutMain } from "./channel-set.ts";
import { isOverdue, neverTaken } from "./handover-watch.ts";

/** QEMU closes all channels within milliseconds; the rest only takes as long as our disk does. */
const LAST_BYTES_MS = 30_000;

export interface WatchPlan {
  readonly control: ControlBlock;
  readonly channels: number | undefined;
  readonly connectTimeoutMs: number;
  readonly stallTimeoutMs: number;
  /** How many connections were turned away because of who made them. */
  readonly refused: () => number;
}

/** Notices what takes too long. */
export class ReceptionWatch {
  readonly #plan: WatchPlan;
  readonly #start = performance.now();
  #moved = -1;
  #movedAt = this.#start;
  /** At the last look nobody was left whom main could belong to. */
  #abandoned = false;

  constructor(plan: WatchPlan) {
    this.#plan = plan;
  }

  look(arrivals: readonly Arrival[]): MultifdError | null {
    const now = performance.now();
    const present = arrivals.filter((arrival) => !arrival.ignored);
    return (
      this.#handover(present, now) ??
      this.#barriers(present) ??
      this.#gone(present) ??
      this.#connecting(present, now) ??
      this.#moving(present, now)
    );
  }

  /** Whoever waits at a barrier that another one will not come to, because it ended before, waits for ever. */
  #barriers(arrivals: readonly Arrival[]): MultifdError | null {
    const reached = ({ number }: Arrival): number => this.#plan.control.barriersReached(number);
    const furthest = Math.max(0, ...arrivals.map(reached));
    const early = arrivals.find((arrival) => arrival.drained !== null && reached(arrival) < furthest);
    if (early === undefined) return null;
    const name = early.identity === "main" ? "the main channel" : `channel ${early.identity}`;
    const text = `${name} ended at barrier ${reached(early)} of at least ${furthest}: the migration failed or was cancelled half-way, so no image was made`;
    return new MultifdError("STREAM_INCOMPLETE", text, { barriers: reached(early), furthest });
  }

  /**
   * Channels that wait for main are not read, not even to their end of file. When all have hung up, main comes no more, as
   * QEMU connects it first: unless it still waits to be accepted, which happens before the next look.
   */
  #gone(arrivals: readonly Arrival[]): MultifdError | null {
    const before = this.#abandoned;
    this.#abandoned =
      arrivals.some(({ drained }) => drained === null) &&
      arrivals.every(({ identity }) => typeof identity === "number") &&
      arrivals.every(({ connection }) => connection.hungUp);
    return before && this.#abandoned ? withoutMain(arrivals.length, "hung up") : null;
  }

  #handover(arrivals: readonly Arrival[], now: number): MultifdError | null {
    const late = arrivals.find(
      (arrival) =>
        arrival.drained === null &&
        !this.#plan.control.isTaken(arrival.number) &&
        isOverdue(arrival.acceptedAt, now),
    );
    return late === undefined ? null : neverTaken(late.number);
  }

  #connecting(arrivals: readonly Arrival[], now: number): MultifdError | null {
    const limit = this.#plan.connectTimeoutMs;
    const identified = arrivals.filter((arrival) => arrival.identity !== "unknown");
    const hasMain = identified.some((arrival) => arrival.identity === "main");
    const expected = this.#plan.channels;
    const whole =
      hasMain && (expected === undefined ? isGapless(identified) : identified.length === expected + 1);
    if (!whole && now - this.#start > limit) {
      const multifd = identified.length - (hasMain ? 1 : 0);
      const wanted = expected === undefined ? "" : ` of ${expected}`;
      const refused = this.#plan.refused();
      const advice =
        refused === 0
          ? "start the migration earlier, or allow more with --connect-timeout"
          : `${refused} connections of other users were refused; if QEMU runs as another user, name it with --allow-uid`;
      const text = `after ${limit / 1000} s the main channel ${hasMain ? "is" : "is not"} connected and ${multifd}${wanted} multifd channels are: ${advice}`;
      return new MultifdError("CONNECT_TIMEOUT", text, { main: hasMain, channels: multifd, refused });
    }
    const silent = arrivals.find(
      (arrival) => arrival.identity === "unknown" && now - arrival.acceptedAt > limit,
    );
    if (silent === undefined) return null;
    const text = `connection ${silent.number + 1} has not said what it is within ${limit / 1000} s: only QEMU may connect to this socket`;
    return new MultifdError("CONNECT_TIMEOUT", text, { connection: silent.number });
  }

  #moving(arrivals: readonly Arrival[], now: number): MultifdError | null {
    const moved = arrivals.reduce((sum, arrival) => sum + this.#plan.control.moved(arrival.number), 0);
    if (moved !== this.#moved || isPacing(this.#plan.control)) {
      this.#moved = moved;
      this.#movedAt = now;
      return null;
    }
    const idle = now - this.#movedAt;
    const { stallTimeoutMs } = this.#plan;
    if (stallTimeoutMs > 0 && arrivals.length > 0 && idle > stallTimeoutMs) {
      const text = `no byte came on any channel for ${stallTimeoutMs / 1000} s: is QEMU still migrating, and its return-path off?`;
      return new MultifdError("STALLED", text, { bytes: moved });
    }
    const ended = arrivals.filter((arrival) => arrival.drained !== null).length;
    if (ended > 0 && ended < arrivals.length && idle > LAST_BYTES_MS) {
      const text = `${ended} of ${arrivals.length} connections ended, and nothing came on the others for ${LAST_BYTES_MS / 1000} s: the migration failed half-way`;
      return new MultifdError("STREAM_INCOMPLETE", text, { ended, connections: arrivals.length });
    }
    return null;
  }
}

/** Whether the multifd ids are 0..N-1, in whatever order they came: a gap means that one is missing. */
function isGapless(identified: readonly Arrival[]): boolean {
  const ids = identified.map(({ identity }) => identity).filter((identity) => typeof identity === "number");
  return ids.every((id) => id < ids.length);
}
