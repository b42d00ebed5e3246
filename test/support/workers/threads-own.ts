import { setTimeout as sleep } from "node:timers/promises";
import { threadId } from "node:worker_threads";

interface Together {
  /** One word: how many of them have begun. */
  readonly begun: SharedArrayBuffer;
  readonly tasks: number;
}

/** Answers with the thread it runs in, once all have begun. */
export async function feed({ begun, tasks }: Together): Promise<{ ok: true; value: number }> {
  const count = new Int32Array(begun);
  Atomics.add(count, 0, 1);
  while (Atomics.load(count, 0) < tasks) await sleep(5);
  return { ok: true, value: threadId };
}
