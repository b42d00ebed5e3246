import { growthWay, RESTORED_OVER, SAVED_OVER, WAYS } from "../../bench/peers/measurements.ts";
import type { Report } from "../../bench/peers/report.ts";
import type { Results, Sample } from "../../bench/peers/sample.ts";

const MIB = 2 ** 20;

/** A sample with every figure, alike in all ways. */
export const PLAIN: Sample = {
  ms: 1000,
  processMs: 1100,
  syncMs: 10,
  tailMs: 20,
  cpuSeconds: 0.5,
  peakRssBytes: 100 * MIB,
  cacheGrowthBytes: MIB,
};

const PARALLEL = [WAYS.stream, WAYS.mapped, WAYS.direct, WAYS.buffered];
const GROWTH = (["stream", "mapped-ram"] as const).flatMap((format) =>
  (["small", "large"] as const).map((size) => growthWay(format, size)),
);

/** The ways of each measurement. */
const MEASURED: Readonly<Record<string, readonly string[]>> = {
  ...Object.fromEntries(SAVED_OVER.map((n) => [`save-${n}`, [...PARALLEL, WAYS.execCat, WAYS.file]])),
  "c-program": [WAYS.stream, WAYS.cChecked, WAYS.unchecked, WAYS.c],
  "save-64": [WAYS.four, WAYS.many],
  limit: [WAYS.stream, WAYS.fio, WAYS.fioHuge],
  ...Object.fromEntries(RESTORED_OVER.map((n) => [`restore-${n}`, PARALLEL])),
  verify: [WAYS.verify, WAYS.fio, WAYS.fioHuge],
  memory: GROWTH,
  start: [WAYS.node, WAYS.start],
};

/** A report of 3 rounds with a guest of 2 GiB, in which everything is alike but what a test says. */
export function benchReport(differing: Results = {}): Report {
  const plain = (ways: readonly string[]): [string, Sample[]][] =>
    ways.map((way) => [way, [PLAIN, PLAIN, PLAIN]]);
  const results = Object.entries(MEASURED).map(([name, ways]) => [
    name,
    { ...Object.fromEntries(plain(ways)), ...differing[name] },
  ]);
  return {
    takenOn: "2026-02-03",
    ramBytes: 2048 * MIB,
    rounds: 3,
    setting: {
      machine: {
        cpu: "A Processor",
        cores: 2,
        memoryBytes: 16 * 2 ** 30,
        kernel: "6.1",
        node: "20.20.0",
      },
      disk: { fileSystem: "ext4", device: "/dev/disk", model: "A Disk", rotates: false },
      qemu: "10.0.2",
      fio: "fio-3.33",
      compiler: "cc 12",
    },
    loads: Object.fromEntries(results.map(([name]) => [name, 0.1])),
    results: Object.fromEntries(results),
  };
}
