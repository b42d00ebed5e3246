import type { QemuFigures } from "../../control/events.ts";
import type { Monitor } from "../../qmp/monitor.ts";

/** How long a VM may go on while it is saved. */
export interface LiveLimits {
  /** How long the VM may stand still at the end, in milliseconds; QEMU's own default (300) when left out. */
  readonly maxDowntimeMs?: number | undefined;
  /** After so many passes over the RAM the VM is stopped. Default: no limit. */
  readonly maxPasses?: number | undefined;
  /** After so many milliseconds the VM is stopped. Default: no limit. */
  readonly maxMs?: number | undefined;
}

/** A VM that dirties its RAM faster than it is written never converges; it is stopped when a limit is reached. */
export class LivePolicy {
  readonly #monitor: Monitor;
  readonly #limits: LiveLimits;
  readonly #start = performance.now();
  #stopped = false;

  constructor(monitor: Monitor, limits: LiveLimits) {
    this.#monitor = monitor;
    this.#limits = limits;
  }

  /** @returns "paused" once, when this look stopped the VM */
  async look({ passes, status }: QemuFigures): Promise<"paused" | null> {
    if (this.#stopped || status !== "active") return null;
    const { maxPasses = Infinity, maxMs = Infinity } = this.#limits;
    if (passes <= maxPasses && performance.now() - this.#start < maxMs) return null;
    this.#stopped = true;
    await this.#monitor.execute("stop");
    return "paused";
  }
}
