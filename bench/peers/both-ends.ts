import { PageCacheWatch } from "../../src/bench/usage.ts";
import type { Program } from "./program.ts";
import type { Sample } from "./sample.ts";

/**
 * A migration and the program at its other end, until both are done.
 * @param completed QEMU's side: resolves with the time when it was completed
 * @param since when the time began that a user waits
 */
export async function untilBoth(
  program: Program,
  completed: Promise<number>,
  since: number,
): Promise<Sample> {
  const cache = new PageCacheWatch();
  try {
    const [completedAt, end] = await Promise.all([completed, program.ended]);
    const { cachedBytes, dirtyBytes } = cache.stop();
    return {
      ms: Math.max(completedAt, end.endedAt) - since,
      processMs: end.endedAt - program.startedAt,
      tailMs: Math.max(0, end.endedAt - completedAt),
      cpuSeconds: end.cpuSeconds,
      peakRssBytes: end.peakRssBytes,
      cacheGrowthBytes: cachedBytes + dirtyBytes,
    };
  } finally {
    cache.stop();
  }
}
