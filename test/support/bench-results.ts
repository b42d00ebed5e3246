import type { BenchReport } from "../../src/bench/bench.ts";
import type { Sample, Samples } from "../../src/bench/measure.ts";
import { recommend } from "../../src/bench/recommend.ts";
import { type Result, resultsOf } from "../../src/bench/results.ts";
import type { Combination, Sweep } from "../../src/bench/sweep.ts";

const GIB = 2 ** 30;

export const PLAIN: Combination = {
  channels: 4,
  workers: "auto",
  directIo: "on",
  format: "stream",
  checksum: "crc32",
};

/** Made-up figures: a combination, and at how many GiB/s it saved in each round. */
export type Speeds = readonly (readonly [Partial<Combination>, readonly number[]])[];

export function sampleOf(gibPerSecond: number): Sample {
  return {
    elapsedMs: 1000 / gibPerSecond,
    cpuSeconds: 0.5,
    qemuCpuSeconds: null,
    peakRssBytes: 100 * 2 ** 20,
    listeningMs: 80,
    tailMs: 12,
    cacheGrowthBytes: 2 ** 20,
    bytes: GIB,
  };
}

/** Of a guest of 1 GiB. */
export function savesOf(speeds: Speeds): Result[] {
  return resultsOf(
    speeds.map(([combination, rounds]): readonly [Combination, readonly Samples[]] => [
      { ...PLAIN, ...combination },
      rounds.map((speed) => ({ save: sampleOf(speed) })),
    ]),
    GIB,
  );
}

export function reportOf(results: readonly Result[], sweep: Partial<Sweep> = {}): BenchReport {
  const target = {
    directory: "/images",
    fileSystem: "ext4",
    device: "/dev/vda1",
    model: null,
    rotates: false,
  };
  return {
    machine: {
      ...{ cpu: "A processor", cores: 2, memoryBytes: 8 * GIB, kernel: "6.1", node: "20.19.0", qemus: [] },
      target: { ...target, freeBytes: 50 * GIB },
      load: [0.1, 0.2, 0.3],
    },
    source: { kind: "generator", pages: "random" },
    ramBytes: GIB,
    rounds: results[0]?.samples.length ?? 0,
    sweep: {
      ...{ channels: [1, 4], workers: ["auto"], directIo: ["on"], format: ["stream"], checksum: ["crc32"] },
      ...sweep,
    },
    leftOut: [],
    results,
    recommended: recommend(results),
  };
}
