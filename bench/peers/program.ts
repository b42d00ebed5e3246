import { type ChildProcess, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { plainEnvironment } from "../../src/bench/environment.ts";
import { ProcessWatch } from "../../src/bench/usage.ts";

export interface Surroundings {
  /** Kills the program when it aborts. */
  readonly signal: AbortSignal;
  /** Added to the environment. */
  readonly env?: Readonly<Record<string, string>>;
}

/** How a program ended: with status 0. Times as performance.now() has them. */
export interface ProgramEnd {
  readonly endedAt: number;
  readonly cpuSeconds: number;
  readonly peakRssBytes: number;
  readonly stdout: string;
}

/** A program of its own that is measured while it runs. */
export class Program {
  readonly startedAt: number;
  /** Rejects with the program's last words when it ends otherwise than with status 0. */
  readonly ended: Promise<ProgramEnd>;
  readonly #child: ChildProcess;
  #stdout = "";
  #stderr = "";
  #onOutput: () => void = () => undefined;

  constructor(command: string, args: readonly string[], { signal, env }: Surroundings) {
    this.startedAt = performance.now();
    this.#child = spawn(command, args, {
      stdio: ["ignore", "pipe", "pipe"],
      signal,
      killSignal: "SIGKILL",
      env: { ...plainEnvironment(), ...env },
    });
    const watch = new ProcessWatch(this.#child.pid ?? 0);
    let endedAt = 0;
    (this.#child.stdout as Readable).setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
      this.#onOutput();
    });
    (this.#child.stderr as Readable).setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    this.#child.on("exit", () => {
      endedAt = performance.now();
    });
    this.ended = new Promise((resolve, reject) => {
      this.#child.on("error", reject);
      this.#child.on("close", (status, killedBy) => {
        const usage = watch.stop();
        if (status === 0) return resolve({ endedAt, ...usage, stdout: this.#stdout });
        reject(
          new Error(`${command} ${args.join(" ")} ended with ${status ?? killedBy}: ${this.#stderr.trim()}`),
        );
      });
    });
    this.ended.catch(() => undefined);
  }

  /** Resolves with the time when `text` has come on stdout; rejects when the program fails or ends before. */
  async said(text: string): Promise<number> {
    const heard = new Promise<number>((resolve) => {
      this.#onOutput = () => {
        if (this.#stdout.includes(text)) resolve(performance.now());
      };
    });
    const silent = this.ended.then(() => {
      throw new Error(`${this.#child.spawnfile} ended without saying ${text}`);
    });
    return Promise.race([heard, silent]);
  }

  /** Has it clean up and end early, and waits for that. */
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    await this.ended.catch(() => undefined);
  }
}
