import type { ControlBlock } from "../pool/control-block.ts";
import { RunPool, threadCount } from "../pool/run-pool.ts";
import type { WorkerCode } from "../pool/worker-code.ts";
import { whenAborted } from "./cancellation.ts";
import type { ProgressEvent } from "./events.ts";
import type { RunOptions } from "./options.ts";
import { teller } from "./telling.ts";

const TICK_MS = 100;
/** Tasks at once: enough for any disk, and each holds its buffers. Nobody waits for those that come later. */
const ABREAST = 32;

/**
 * Runs tasks that read an image side by side, until all have answered, one fails, or the run is cancelled. No worker
 * reads any more when it returns: the caller may close the image.
 * @param progress asked ten times a second
 * @param named makes the error of a task say which one it was
 */
export async function readInParallel<T>(
  options: RunOptions,
  code: WorkerCode,
  control: ControlBlock,
  tasks: readonly object[],
  progress: () => ProgressEvent | null,
  named: (task: number, error: unknown) => unknown = (_, error) => error,
): Promise<readonly T[]> {
  const pool = new RunPool(code, threadCount(options.workers, tasks.length));
  const tell = teller(options);
  const ticker = setInterval(() => {
    const event = progress();
    if (event !== null) tell(event);
  }, TICK_MS);
  let unwatch = (): void => undefined;
  try {
    const aborted = new Promise<never>((_, reject) => {
      unwatch = whenAborted(options.signal, reject);
    });
    aborted.catch(() => undefined);
    const answers: T[] = [];
    const waiting = tasks.entries();
    const lane = async (): Promise<void> => {
      for (const [number, task] of waiting) {
        answers[number] = await pool.run<T>(task).catch((error: unknown) => {
          throw named(number, error);
        });
      }
    };
    const running = Array.from({ length: Math.min(ABREAST, tasks.length) }, lane);
    try {
      await Promise.race([Promise.all(running), aborted]);
      return answers;
    } catch (error) {
      // The descriptor is closed next: no worker may be reading from it any more.
      control.setGiveUp();
      await Promise.allSettled(running);
      throw error;
    }
  } finally {
    clearInterval(ticker);
    unwatch();
    await pool.close();
  }
}
