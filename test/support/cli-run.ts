import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach } from "vitest";
import { MAIN } from "../../src/entry-points.ts";

/** A line that the helper wrote under --json. */
export type CliEvent = Readonly<Record<string, unknown>> & { readonly event: string };

export interface CliResult {
  readonly status: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly events: readonly CliEvent[];
  readonly stderr: string;
  readonly elapsedMs: number;
}

export interface CliOptions {
  /** Descriptors of this process that the helper inherits as 3, 4, … */
  readonly inherit?: readonly number[];
  /** It is killed, and the test fails, when it runs longer. */
  readonly boundMs?: number;
}

/** The built command line in a process of its own, always with --json and with nothing on stdin. */
export class CliRun {
  readonly events: CliEvent[] = [];
  readonly finished: Promise<CliResult>;
  readonly #child: ChildProcess;

  constructor(args: readonly string[], { inherit = [], boundMs = 30_000 }: CliOptions) {
    const started = performance.now();
    this.#child = spawn(process.execPath, [MAIN, ...args, "--json"], {
      stdio: ["ignore", "pipe", "pipe", ...inherit],
    });
    const { stdout, stderr } = this.#child;
    if (stdout === null || stderr === null) throw new Error("the helper was started without pipes");
    createInterface(stdout).on("line", (line) => this.events.push(JSON.parse(line)));
    let said = "";
    stderr.setEncoding("utf8").on("data", (text: string) => {
      said += text;
    });
    let overdue = false;
    const timer = setTimeout(() => {
      overdue = true;
      this.kill("SIGKILL");
    }, boundMs);
    this.finished = once(this.#child, "close").then(([status, signal]) => {
      clearTimeout(timer);
      if (overdue) throw new Error(`${args.join(" ")} still ran after ${boundMs} ms; it said: ${said}`);
      return { status, signal, events: this.events, stderr: said, elapsedMs: performance.now() - started };
    });
    this.finished.catch(() => undefined); // also where a test has failed before it looked
  }

  /** Waits for an event that has come or will come. */
  async until(wanted: (event: CliEvent) => boolean, timeoutMs = 10_000): Promise<CliEvent> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const event = this.events.find(wanted);
      if (event !== undefined) return event;
      const ended = this.#child.exitCode !== null || this.#child.signalCode !== null;
      if (ended || performance.now() > deadline) {
        throw new Error(`the awaited event has not come; came: ${JSON.stringify(this.events)}`);
      }
      await sleep(5);
    }
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }
}

/** Starts the command line; what a test leaves running is killed when the test ends. */
export function useCli(): (args: readonly string[], options?: CliOptions) => CliRun {
  const runs: CliRun[] = [];
  afterEach(async () => {
    for (const run of runs) run.kill("SIGKILL");
    await Promise.allSettled(runs.splice(0).map((run) => run.finished));
  });
  return (args, options = {}) => {
    const run = new CliRun(args, options);
    runs.push(run);
    return run;
  };
}
