import { median, pairedRatio, type Spread, spreadOf } from "../../src/bench/statistics.ts";
import { growthWay, LARGE, SMALL, WAYS } from "./measurements.ts";
import type { Report } from "./report.ts";
import type { Results, Sample } from "./sample.ts";

/** Computes one figure from a report. */
export type Figure = (report: Report) => Spread;
/** One value of each sample. */
export type Field = (sample: Sample) => number | undefined;

const MIB = 2 ** 20;
const GIB = 2 ** 30;

export const timeOf: Field = ({ ms }) => ms;

/** How many times as fast `way` was as `base`, round by round. */
export function speedUp(measurement: string, way: string, base: string): Figure {
  return ({ results }) => ratio(results, measurement, base, way, timeOf);
}

/** The same against fio, with the memory with which it was faster. */
export function speedUpOnFio(measurement: string, way: string): Figure {
  return (report) => speedUp(measurement, way, fasterFio(report.results, measurement))(report);
}

/** How many times of `base` it cost, round by round. */
export function cost(measurement: string, way: string, base: string, field: Field): Figure {
  return ({ results }) => ratio(results, measurement, way, base, field);
}

export function inMib(measurement: string, way: string, field: Field): Figure {
  return ({ results }) => spreadOf(valuesOf(results, measurement, way, field).map((bytes) => bytes / MIB));
}

/** The share of a save, in percent, that came after QEMU's `completed`. */
export function tailShare(measurement: string, way: string): Figure {
  return ({ results }) =>
    spreadOf(
      valuesOf(results, measurement, way, ({ tailMs, ms }) =>
        tailMs === undefined ? tailMs : (100 * tailMs) / ms,
      ),
    );
}

/** By how many MiB the peak RSS of a large guest's save was above that of a small one's. */
export function rssGrowth(format: "stream" | "mapped-ram"): Figure {
  return ({ results }) => {
    const [small, large] = (["small", "large"] as const).map((size) =>
      valuesOf(results, "memory", growthWay(format, size), ({ peakRssBytes }) => peakRssBytes),
    ) as [number[], number[]];
    return spreadOf(large.map((bytes, round) => (bytes - (small[round] as number)) / MIB));
  };
}

/** The same for each GiB by which the guest was larger. */
export function rssGrowthPerGib(format: "stream" | "mapped-ram"): Figure {
  return (report) => {
    const gib = ((LARGE - SMALL) * report.ramBytes) / GIB;
    const { lower, median, upper } = rssGrowth(format)(report);
    return { lower: lower / gib, median: median / gib, upper: upper / gib };
  };
}

export function fasterFio(results: Results, measurement: string): string {
  const times = [WAYS.fio, WAYS.fioHuge].map((way) => median(valuesOf(results, measurement, way, timeOf)));
  return (times[0] as number) < (times[1] as number) ? WAYS.fio : WAYS.fioHuge;
}

/** Throws where the report lacks the figure: it is of another version of this program, or of a part of the measurements. */
export function valuesOf(results: Results, measurement: string, way: string, field: Field): number[] {
  const values = (results[measurement]?.[way] ?? []).map(field);
  if (values.length > 0 && values.every((value) => value !== undefined)) return values as number[];
  throw new Error(`the report lacks a figure of "${way}" in ${measurement}: measure again`);
}

function ratio(results: Results, measurement: string, way: string, base: string, field: Field): Spread {
  return pairedRatio(valuesOf(results, measurement, way, field), valuesOf(results, measurement, base, field));
}
