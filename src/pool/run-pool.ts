import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { Piscina } from "piscina";
import { fromFailure, MultifdError } from "../errors.ts";
import { hasCode } from "../io/file-io.ts";
import { loadPiscina } from "../piscina.ts";
import type { Answer } from "./messages.ts";
import { tuneThreads } from "./thread-tuning.ts";
import type { WorkerCode } from "./worker-code.ts";

/** Far more than a thread needs to load its code, even on a busy machine. */
const LOADING_MS = 5000;

/** Threads that were started together. */
interface Crew {
  readonly piscina: Piscina;
  readonly threads: number;
  /** Tasks under way. */
  tasks: number;
}

/** The threads of one run. Every task starts at once, however many there are: a queued channel would deadlock QEMU. */
export class RunPool {
  readonly #code: WorkerCode;
  readonly #crews: Crew[] = [];
  /** Thread ids of the workers that have loaded their code. */
  readonly #loaded = new Set<number>();
  readonly #tunes: boolean;
  /** Whether a task has been given: no more threads are asked for then. */
  #begun = false;
  /** Why a thread ended that had nothing to do; null: none did. */
  #died: unknown = null;
  #closed: Promise<void> | null = null;

  /**
   * @param code is loaded at once; tasks may name another
   * @param tunes whether no pool is started after this one has begun: what its threads are told holds for later ones, too, and makes
   *   them late
   */
  constructor(code: WorkerCode, threads: number, tunes = false) {
    this.#code = code;
    this.#tunes = tunes;
    this.grow(threads);
  }

  /** Sees that there are as many threads: how many a run needs may be known only when some load already. */
  grow(threads: number): void {
    const missing = this.#crews.reduce((left, crew) => left - crew.threads, threads);
    if (missing > 0) this.#crews.push({ piscina: this.#start(missing), threads: missing, tasks: 0 });
  }

  #start(threads: number): Piscina {
    const piscina = new (loadPiscina().Piscina)({
      filename: this.#code.url.href,
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
    const first = piscina.threads.map((thread) => {
      // A worker's first message says that its code is loaded.
      thread.once("message", () => {
        this.#loaded.add(thread.threadId);
        this.#tune();
      });
      return thread.threadId;
    });
    // Of workers that replace a dead one the event says so; of the first ones it comes before they have begun.
    piscina.on("workerCreate", ({ id }: { id: number }) => {
      if (!first.includes(id)) this.#loaded.add(id);
    });
    // A worker that dies rejects its tasks; without a listener the pool's own event would end the process.
    piscina.on("error", (error: unknown) => {
      this.#died ??= error;
    });
    return piscina;
  }

  async run<T>(task: object, { url, name }: WorkerCode = this.#code): Promise<T> {
    const crew = this.#crews.reduce((best, one) => (loadOf(one) < loadOf(best) ? one : best));
    // Threads that cannot load their code are not tried again, and a task would wait for them for ever.
    if (crew.piscina.threads.length === 0) throw workerDied(this.#died);
    crew.tasks++;
    this.#begun = true;
    this.#tune();
    let answer: Answer<T>;
    try {
      answer = (await crew.piscina.run(task, { filename: url.href, name })) as Answer<T>;
    } catch (error) {
      throw workerDied(error);
    } finally {
      crew.tasks--;
    }
    if (!answer.ok) throw fromFailure(answer.failure);
    return answer.value;
  }

  /** Ends all threads, once: whatever they were doing, they do no more when this resolves. */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    // A thread that is terminated while it loads koffi takes the whole process with it (abort in napi_throw).
    await this.loaded();
    await Promise.all(this.#crews.map(({ piscina }) => piscina.destroy()));
  }

  /** Waits until every thread can begin at once; one that cannot load its code fails its task. */
  async loaded(): Promise<void> {
    const deadline = performance.now() + LOADING_MS;
    while (!this.#allLoaded() && performance.now() < deadline) await sleep(2);
  }

  #tune(): void {
    if (this.#tunes && this.#begun && this.#allLoaded()) tuneThreads();
  }

  #allLoaded(): boolean {
    return this.#crews.every(({ piscina }) =>
      piscina.threads.every(({ threadId }) => this.#loaded.has(threadId)),
    );
  }
}

/** How busy a crew's threads were with one task more. */
function loadOf({ tasks, threads }: Crew): number {
  return (tasks + 1) / threads;
}

function workerDied(error: unknown): MultifdError {
  const text = error instanceof Error ? error.message : String(error);
  // A thread reads its code from files, while the connections of its run may take the last descriptors.
  if (hasCode(error, "EMFILE") || text.includes("EMFILE")) {
    const advice = "raise the limit of open files (ulimit -n)";
    return new MultifdError("IO", `a worker thread could not load its code: ${text}; ${advice}`, {}, error);
  }
  return new MultifdError("WORKER_DIED", `a worker thread died: ${text}`, {}, error);
}

/** Threads for a number of tasks: no more than there are tasks or cores, unless told otherwise. */
export function threadCount(asked: number | undefined, tasks: number): number {
  return asked ?? Math.max(1, Math.min(tasks, availableParallelism()));
}
