import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { MAIN } from "../entry-points.ts";
import { ERROR_CODES, type ErrorCode, MultifdError } from "../errors.ts";
import { parseEvent, type SeenEvent } from "../own-program.ts";
import { plainEnvironment } from "./environment.ts";
import { type ProcessUsage, ProcessWatch } from "./usage.ts";

const NOTHING_TOLD = { code: undefined, message: undefined };

/** What one run of the command line took. Times are on the clock of performance.now(). */
export interface HelperEnd {
  readonly endedAt: number;
  readonly usage: ProcessUsage;
  /** Its `completed`. */
  readonly completed: SeenEvent;
}

/**
 * The command line as a process of its own, as a manager starts it: what it costs is what it costs a user. It ends when
 * this process does.
 */
export class MeasuredHelper {
  readonly startedAt: number = performance.now();
  /** Resolves when it has ended well; rejects with the failure that it told, or with the signal's reason. */
  readonly ended: Promise<HelperEnd>;
  readonly #child: ChildProcess;
  readonly #watch: ProcessWatch;
  readonly #events: SeenEvent[] = [];
  #told: (() => void) | null = null;
  #stderr = "";

  /** @param args of the command line, without --json @param signal asks it to clean up and end */
  constructor(args: readonly string[], signal: AbortSignal) {
    const child = spawn(process.execPath, [MAIN, ...args, "--json", "--die-with-parent"], {
      stdio: ["ignore", "pipe", "pipe"],
      env: plainEnvironment(),
    });
    this.#child = child;
    this.#watch = new ProcessWatch(child.pid ?? 0);
    createInterface(child.stdout as Readable).on("line", (line) => this.#take(line));
    (child.stderr as Readable).setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    this.ended = this.#end(signal);
    this.ended.catch(() => undefined);
  }

  /** Resolves with the event, and when it came; rejects as `ended` does when the process ends before. */
  async waitEvent(name: string): Promise<{ readonly event: SeenEvent; readonly at: number }> {
    const found = new Promise<SeenEvent>((resolve) => {
      const look = (): void => {
        const event = this.#events.find((candidate) => candidate.event === name);
        if (event !== undefined) resolve(event);
      };
      this.#told = look;
      look();
    });
    const event = await Promise.race([found, this.ended.then(() => null)]);
    if (event === null) throw new MultifdError("INTERNAL", `the helper ended without the event ${name}`);
    return { event, at: performance.now() };
  }

  #take(line: string): void {
    const event = parseEvent(line);
    if (event === null) return;
    this.#events.push(event);
    this.#told?.();
  }

  async #end(signal: AbortSignal): Promise<HelperEnd> {
    const stop = (): void => void this.#child.kill("SIGTERM");
    signal.addEventListener("abort", stop, { once: true });
    if (signal.aborted) stop();
    let endedAt = 0;
    try {
      const status = await new Promise<number | string>((resolve, reject) => {
        this.#child.once("error", reject);
        // The exit is what a user waits for; "close" comes when the last line was read.
        this.#child.once("exit", () => {
          endedAt = performance.now();
        });
        this.#child.once("close", (code, killedBy) => resolve(killedBy ?? code ?? 1));
      });
      signal.throwIfAborted();
      const completed = this.#events.at(-1);
      if (status !== 0 || completed?.event !== "completed") throw this.#failure(status);
      return { endedAt, usage: this.#watch.now(), completed };
    } finally {
      this.#watch.stop();
      signal.removeEventListener("abort", stop);
    }
  }

  #failure(status: number | string): MultifdError {
    const last = this.#events.at(-1);
    const { code, message } = last?.event === "failed" ? last : NOTHING_TOLD;
    if (typeof message === "string" && typeof code === "string" && code in ERROR_CODES) {
      return new MultifdError(code as ErrorCode, message);
    }
    const said = this.#stderr.trim();
    const text = `the helper ended with ${status} and ${said === "" ? "said nothing" : `said: ${said}`}`;
    return new MultifdError("INTERNAL", text, { status });
  }
}
