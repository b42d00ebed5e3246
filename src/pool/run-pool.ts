import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { Piscina } from "piscina";
import { fromFailure, MultifdError } from "../errors.ts";
import { hasCode } from "../io/file-io.ts";
import type { Answer } from "./messages.ts";
import type { WorkerCode } from "./worker-code.ts";

/** Far more than a thread needs to load its code, even on a busy machine. */
const LOADING_MS = 5000;

/** The threads of one run. Every task starts at once, however many there are: a queued channel would deadlock QEMU. */
export class RunPool {
  readonly #piscina: Piscina;
  readonly #name: string;
  /** Thread ids of the workers that have loaded their code. */
  readonly #loaded = new Set<number>();

  constructor(code: WorkerCode, threads: number) {
    this.#name = code.name;
    this.#piscina = new Piscina({
      filename: code.url.href,
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
    const first = this.#piscina.threads.map((thread) => {
      // A worker's first message says that its code is loaded.
      thread.once("message", () => this.#loaded.add(thread.threadId));
      return thread.threadId;
    });
    // Of workers that replace a dead one the event says so; of the first ones it comes before they have begun.
    this.#piscina.on("workerCreate", ({ id }: { id: number }) => {
      if (!first.includes(id)) this.#loaded.add(id);
    });
    // A worker that dies rejects its tasks; without a listener the pool's own event would end the process.
    this.#piscina.on("error", () => undefined);
  }

  async run<T>(task: object): Promise<T> {
    let answer: Answer<T>;
    try {
      answer = (await this.#piscina.run(task, { name: this.#name })) as Answer<T>;
    } catch (error) {
      throw workerDied(error);
    }
    if (!answer.ok) throw fromFailure(answer.failure);
    return answer.value;
  }

  async close(): Promise<void> {
    // A thread that is terminated while it loads koffi takes the whole process with it (abort in napi_throw).
    await this.loaded();
    await this.#piscina.destroy();
  }

  /** Waits until every thread can begin at once; one that cannot load its code fails its task. */
  async loaded(): Promise<void> {
    const deadline = performance.now() + LOADING_MS;
    while (!this.#allLoaded() && performance.now() < deadline) await sleep(2);
  }

  #allLoaded(): boolean {
    return this.#piscina.threads.every(({ threadId }) => this.#loaded.has(threadId));
  }
}

function workerDied(error: unknown): MultifdError {
  const text = error instanceof Error ? error.message : String(error);
  // A thread reads its code from files, while the connections of its run may take the last descriptors.
  if (hasCode(error, "EMFILE")) {
    const advice = "raise the limit of open files (ulimit -n)";
    return new MultifdError("IO", `a worker thread could not load its code: ${text}; ${advice}`, {}, error);
  }
  return new MultifdError("WORKER_DIED", `a worker thread died: ${text}`, {}, error);
}

/** Threads for a number of tasks: no more than there are tasks or cores, unless told otherwise. */
export function threadCount(asked: number | undefined, tasks: number): number {
  return asked ?? Math.max(1, Math.min(tasks, availableParallelism()));
}
