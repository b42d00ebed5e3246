/** One of the things that are compared: it does its work once and tells what that took. */
export interface Way<T> {
  /** Unlike that of every other way. */
  readonly name: string;
  readonly run: (signal: AbortSignal) => Promise<T>;
}

/** Told before each run. */
export interface RoundsProgress {
  /** 0: warm-up, whose figures do not count. */
  readonly round: number;
  readonly rounds: number;
  readonly way: string;
  /** Runs that are over, of all that there will be; warm-up included. */
  readonly done: number;
  readonly total: number;
  readonly elapsedMs: number;
}

export interface RoundsOptions {
  /** How many samples each way gives. */
  readonly rounds: number;
  /** Nothing more begins once it aborts; the run under way ends by it, too. */
  readonly signal: AbortSignal;
  readonly onProgress?: (progress: RoundsProgress) => void;
}

/**
 * Runs every way once per round, a warm-up round first. The order is turned round each time, so that a machine that drifts
 * drifts for all alike. The n-th samples of all ways are of one round: they are pairs.
 * Rejects with what a way rejects with, or with the signal's reason when it aborts.
 * @returns the samples by the way's name, in the order of the ways
 */
export async function runRounds<T>(
  ways: readonly Way<T>[],
  { rounds, signal, onProgress }: RoundsOptions,
): Promise<ReadonlyMap<string, readonly T[]>> {
  const samples = new Map<string, T[]>(ways.map(({ name }) => [name, []]));
  const total = ways.length * (rounds + 1);
  const startedAt = performance.now();
  let done = 0;
  for (let round = 0; round <= rounds; round++) {
    for (const { name, run } of round % 2 === 0 ? ways : ways.toReversed()) {
      signal.throwIfAborted();
      const elapsedMs = Math.round(performance.now() - startedAt);
      onProgress?.({ round, rounds, way: name, done, total, elapsedMs });
      const sample = await run(signal);
      done++;
      if (round > 0) samples.get(name)?.push(sample);
    }
  }
  return samples;
}
