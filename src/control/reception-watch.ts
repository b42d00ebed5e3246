import { MultifdError } from "../errors.ts";
import type { ControlBlock } from "../pool/control-block.ts";
import { isPacing } from "../pool/pacer.ts";
import type { Guest } from "./reception.ts";

/** A worker that did not take its connection by then never will. */
const HANDOVER_MS = 5000;
/** QEMU closes all channels within milliseconds; the rest only takes as long as our disk does. */
const LAST_BYTES_MS = 30_000;

export interface WatchPlan {
  readonly control: ControlBlock;
  readonly channels: number | undefined;
  readonly connectTimeoutMs: number;
  readonly stallTimeoutMs: number;
}

/** Notices what takes too long. */
export class ReceptionWatch {
  readonly #plan: WatchPlan;
  readonly #start = performance.now();
  #moved = -1;
  #movedAt = this.#start;

  constructor(plan: WatchPlan) {
    this.#plan = plan;
  }

  look(guests: readonly Guest[]): MultifdError | null {
    const now = performance.now();
    const present = guests.filter((guest) => !guest.ignored);
    return this.#handover(present, now) ?? this.#connecting(present, now) ?? this.#moving(present, now);
  }

  #handover(guests: readonly Guest[], now: number): MultifdError | null {
    const late = guests.find(
      (guest) =>
        guest.drained === null &&
        !this.#plan.control.isTaken(guest.number) &&
        now - guest.acceptedAt > HANDOVER_MS,
    );
    if (late === undefined) return null;
    const text = `no worker took connection ${late.number + 1} within ${HANDOVER_MS / 1000} s: the machine is overloaded, or a worker hangs`;
    return new MultifdError("WORKER_DIED", text, { connection: late.number });
  }

  #connecting(guests: readonly Guest[], now: number): MultifdError | null {
    const limit = this.#plan.connectTimeoutMs;
    const identified = guests.filter((guest) => guest.identity !== "unknown");
    const hasMain = identified.some((guest) => guest.identity === "main");
    const expected = this.#plan.channels;
    const whole = hasMain && (expected === undefined || identified.length === expected + 1);
    if (!whole && now - this.#start > limit) {
      const multifd = identified.length - (hasMain ? 1 : 0);
      const wanted = expected === undefined ? "" : ` of ${expected}`;
      const text = `after ${limit / 1000} s the main channel ${hasMain ? "is" : "is not"} connected and ${multifd}${wanted} multifd channels are: start the migration earlier, or allow more with --connect-timeout`;
      return new MultifdError("CONNECT_TIMEOUT", text, { main: hasMain, channels: multifd });
    }
    const silent = guests.find((guest) => guest.identity === "unknown" && now - guest.acceptedAt > limit);
    if (silent === undefined) return null;
    const text = `connection ${silent.number + 1} has not said what it is within ${limit / 1000} s: only QEMU may connect to this socket`;
    return new MultifdError("CONNECT_TIMEOUT", text, { connection: silent.number });
  }

  #moving(guests: readonly Guest[], now: number): MultifdError | null {
    const moved = guests.reduce((sum, guest) => sum + this.#plan.control.moved(guest.number), 0);
    if (moved !== this.#moved || isPacing(this.#plan.control)) {
      this.#moved = moved;
      this.#movedAt = now;
      return null;
    }
    const idle = now - this.#movedAt;
    const { stallTimeoutMs } = this.#plan;
    if (stallTimeoutMs > 0 && guests.length > 0 && idle > stallTimeoutMs) {
      const text = `no byte came on any channel for ${stallTimeoutMs / 1000} s: is QEMU still migrating?`;
      return new MultifdError("STALLED", text, { bytes: moved });
    }
    const ended = guests.filter((guest) => guest.drained !== null).length;
    if (ended > 0 && ended < guests.length && idle > LAST_BYTES_MS) {
      const text = `${ended} of ${guests.length} connections ended, and nothing came on the others for ${LAST_BYTES_MS / 1000} s: the migration failed half-way`;
      return new MultifdError("STREAM_INCOMPLETE", text, { ended, connections: guests.length });
    }
    return null;
  }
}
