import { availableParallelism } from "node:os";
import { Piscina } from "piscina";
import { fromFailure, MultifdError } from "../errors.ts";
import type { Answer } from "./messages.ts";

/** Where a task's code lives. Files of workers/ are named by URL only: no module of src imports them. */
export interface WorkerCode {
  readonly url: URL;
  /** Name of the exported function. */
  readonly name: string;
}

export const DRAIN: WorkerCode = { url: new URL("../../workers/drain.js", import.meta.url), name: "drain" };
export const FEED: WorkerCode = { url: new URL("../../workers/feed.js", import.meta.url), name: "feed" };
export const CHECK: WorkerCode = { url: new URL("../../workers/check.js", import.meta.url), name: "check" };

const LOADER = new URL("../../workers/load.cjs", import.meta.url);

/** The threads of one run. Every task starts at once, however many there are: a queued channel would deadlock QEMU. */
export class RunPool {
  readonly #piscina: Piscina;
  readonly #name: string;

  constructor(code: WorkerCode, threads: number) {
    this.#name = code.name;
    this.#piscina = new Piscina({
      filename: LOADER.href,
      workerData: { url: code.url.href },
      minThreads: threads,
      maxThreads: threads,
      // Far above 256 channels: capacity that is short by one task means a task that never starts.
      concurrentTasksPerWorker: 1024,
      // Parked workers would freeze their sockets and timers; our tasks are few and long anyway.
      atomics: "disabled",
      recordTiming: false,
      trackUnmanagedFds: false,
      // Views and promises per block die young; left alone, V8 lets 32 MiB of them gather in each thread.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    // A worker that dies rejects its tasks; without a listener the pool's own event would end the process.
    this.#piscina.on("error", () => undefined);
  }

  async run<T>(task: object): Promise<T> {
    let answer: Answer<T>;
    try {
      answer = (await this.#piscina.run({ name: this.#name, task }, { name: "run" })) as Answer<T>;
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      throw new MultifdError("WORKER_DIED", `a worker thread died: ${text}`, {}, error);
    }
    if (!answer.ok) throw fromFailure(answer.failure);
    return answer.value;
  }

  async close(): Promise<void> {
    await this.#piscina.destroy();
  }
}

/** Threads for a number of tasks: no more than there are tasks or cores, unless told otherwise. */
export function threadCount(asked: number | undefined, tasks: number): number {
  return asked ?? Math.max(1, Math.min(tasks, availableParallelism()));
}
