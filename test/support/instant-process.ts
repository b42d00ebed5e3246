import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import type { InstantOptions } from "../../src/control/instant/options.ts";
import type { SeenEvent } from "../../src/own-program.ts";
import type { FaultSpec } from "./fault-spec.ts";

const PROGRAM = fileURLToPath(new URL("./workers/instant.js", import.meta.url));
const HOOK = new URL("./fault-hook.js", import.meta.url).href;

/** An instant restore in a process of its own. */
export class InstantProcess {
  readonly events: SeenEvent[] = [];
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  #wake: (() => void)[] = [];
  #ended = false;

  constructor(options: InstantOptions, fault: FaultSpec | null = null) {
    const env = { ...process.env, FAULT: JSON.stringify(fault) };
    const args = ["--import", HOOK, PROGRAM, JSON.stringify(options)];
    this.#child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], env });
    const lines = createInterface(this.#child.stdout as Readable);
    lines.on("line", (line) => {
      this.events.push(JSON.parse(line) as SeenEvent);
      this.#changed();
    });
    lines.on("close", () => {
      this.#ended = true;
      this.#changed();
    });
    this.#closed = Promise.all([once(this.#child, "close"), once(lines, "close")]);
  }

  /** Waits until this has happened, or can happen no more. */
  async until(event: string): Promise<void> {
    while (!this.#ended && !this.events.some((seen) => seen.event === event)) {
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  /** Its last event, when it has ended. */
  async last(): Promise<SeenEvent | undefined> {
    await this.#closed;
    return this.events.at(-1);
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#closed;
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}
