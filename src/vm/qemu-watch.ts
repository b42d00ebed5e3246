import { closeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { hasEnded, openProcess } from "../io/libc.ts";

/** Tells whether QEMU's process has ended, also when its number has gone to another process since. */
export class QemuWatch {
  readonly #pidfd: number | null;

  constructor(pid: number | null) {
    this.#pidfd = pid === null ? null : openOrNull(pid);
  }

  /** False where it cannot be known. */
  get ended(): boolean {
    return this.#pidfd !== null && hasEnded(this.#pidfd);
  }

  async endsWithin(ms: number): Promise<boolean> {
    const deadline = Date.now() + ms;
    while (!this.ended && Date.now() < deadline) await sleep(20);
    return this.ended;
  }

  get known(): boolean {
    return this.#pidfd !== null;
  }

  close(): void {
    if (this.#pidfd !== null) closeSync(this.#pidfd);
  }
}

function openOrNull(pid: number): number | null {
  try {
    return openProcess(pid);
  } catch {
    return null;
  }
}
