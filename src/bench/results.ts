import { OPERATIONS, type Operation } from "./choices.ts";
import type { Sample, Samples } from "./measure.ts";
import { type Spread, spreadOf } from "./statistics.ts";
import type { Combination } from "./sweep.ts";

const GIB = 2 ** 30;

/** What one combination took in one operation, over all rounds. */
export interface Result extends Combination {
  readonly operation: Operation;
  readonly figures: Figures;
  /** The n-th of all results are of one round. */
  readonly samples: readonly Sample[];
}

/** Per GiB is per GiB of the guest's RAM, whether its pages were sent or are zero. */
export interface Figures {
  readonly gibPerSecond: Spread;
  readonly cpuSecondsPerGib: Spread;
  /** null without a QEMU, or where it takes no part. */
  readonly qemuCpuSecondsPerGib: Spread | null;
  readonly peakRssBytes: Spread;
  /** null but for save, as the next. */
  readonly listeningMs: Spread | null;
  readonly tailMs: Spread | null;
  readonly cacheGrowthBytes: Spread;
}

/** By operation, and in the order in which the combinations were given. */
export function resultsOf(
  taken: readonly (readonly [Combination, readonly Samples[]])[],
  ramBytes: number,
): Result[] {
  return OPERATIONS.flatMap((operation) =>
    taken.flatMap(([combination, rounds]) => {
      const samples = rounds.flatMap((round) => round[operation] ?? []);
      if (samples.length === 0) return [];
      return [{ operation, ...combination, figures: figuresOf(samples, ramBytes), samples }];
    }),
  );
}

function figuresOf(samples: readonly Sample[], ramBytes: number): Figures {
  const gib = ramBytes / GIB;
  const over = (figure: (sample: Sample) => number): Spread => spreadOf(samples.map(figure));
  const overThose = (figure: (sample: Sample) => number | null): Spread | null => {
    const values = samples.map(figure).filter((value) => value !== null);
    return values.length === 0 ? null : spreadOf(values);
  };
  return {
    gibPerSecond: over(({ elapsedMs }) => (gib * 1000) / elapsedMs),
    cpuSecondsPerGib: over(({ cpuSeconds }) => cpuSeconds / gib),
    qemuCpuSecondsPerGib: overThose(({ qemuCpuSeconds }) => qemuCpuSeconds && qemuCpuSeconds / gib),
    peakRssBytes: over(({ peakRssBytes }) => peakRssBytes),
    listeningMs: overThose(({ listeningMs }) => listeningMs),
    tailMs: overThose(({ tailMs }) => tailMs),
    cacheGrowthBytes: over(({ cacheGrowthBytes }) => cacheGrowthBytes),
  };
}
