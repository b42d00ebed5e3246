import { median, pairedRatio, type Spread, spreadOf } from "../../src/bench/statistics.ts";
import { throughput } from "./charts.ts";
import { type Field, timeOf, valuesOf } from "./figures.ts";
import { growthWay, LARGE, SMALL } from "./measurements.ts";
import type { Report } from "./report.ts";
import type { Sample } from "./sample.ts";
import type { Verdict } from "./targets.ts";
import { boundWords, holdsWords, sizeWords, withSpread } from "./words.ts";

const GIB = 2 ** 30;
const MIB = 2 ** 20;

/** What a table has a column for where one of its ways has the figure. */
interface Column {
  readonly head: string;
  readonly field: Field;
  /** Of a median, for people. */
  readonly show: (value: number, report: Report) => string;
}

const COLUMNS: readonly Column[] = [
  { head: "unsynced, ms", field: ({ syncMs }) => syncMs, show: whole },
  { head: "after `completed`, ms", field: ({ tailMs }) => tailMs, show: whole },
  { head: "process, ms", field: ({ processMs }) => processMs, show: whole },
  {
    head: "CPU, s per GiB",
    field: ({ cpuSeconds }) => cpuSeconds,
    show: (seconds, { ramBytes }) => ((seconds * GIB) / ramBytes).toFixed(2),
  },
  { head: "peak RSS, MiB", field: ({ peakRssBytes }) => peakRssBytes, show: mib },
  { head: "Cached + Dirty, MiB", field: ({ cacheGrowthBytes }) => cacheGrowthBytes, show: mib },
];

/** The ways of a measurement, each beside the first. */
export function waysTable(report: Report, measurement: string): string {
  const ways = Object.entries(report.results[measurement] ?? {});
  const times = (way: string): number[] => valuesOf(report.results, measurement, way, timeOf);
  const [first] = ways[0] as [string, unknown];
  const columns = COLUMNS.filter(({ field }) => ways.some(([, samples]) => hasField(samples, field)));
  const rows = ways.map(([way, samples]) => [
    way,
    withSpread(spreadOf(times(way))),
    withSpread(throughput(report, measurement, way)),
    way === first ? "1" : withSpread(pairedRatio(times(way), times(first))),
    ...columns.map(({ field, show }) =>
      hasField(samples, field)
        ? show(median(valuesOf(report.results, measurement, way, field)), report)
        : "–",
    ),
  ]);
  return table(["way", "ms", "GiB/s", "ratio", ...columns.map(({ head }) => head)], rows);
}

/** Ways that move no RAM. */
export function startTable({ results }: Report): string {
  const ways = Object.keys(results.start ?? {});
  const times = (way: string): number[] => valuesOf(results, "start", way, timeOf);
  const ratio = (way: string): Spread => pairedRatio(times(way), times(ways[0] as string));
  const rows = ways.map((way) => [way, withSpread(spreadOf(times(way))), withSpread(ratio(way))]);
  return table(["way", "ms", `times ${ways[0]}`], rows);
}

export function memoryTable({ results, ramBytes }: Report): string {
  const peak = (format: "stream" | "mapped-ram", size: "small" | "large"): string => {
    const bytes = valuesOf(results, "memory", growthWay(format, size), ({ peakRssBytes }) => peakRssBytes);
    return withSpread(spreadOf(bytes.map((value) => value / MIB)));
  };
  const rows = (["stream", "mapped-ram"] as const).map((format) => [
    `helper, ${format}`,
    peak(format, "small"),
    peak(format, "large"),
  ]);
  const heads = [SMALL, LARGE].map((times) => `guest with ${sizeWords(times * ramBytes)}, MiB`);
  return table(["way", ...heads], rows);
}

/** @param reasons by a target's name: shown where it does not hold */
export function targetTable(verdicts: readonly Verdict[], reasons: Readonly<Record<string, string>>): string {
  const rows = verdicts.map((verdict) => {
    const { name, what, bound, unit } = verdict.target;
    return [
      `\`${name}\``,
      what,
      boundWords(bound, unit),
      `${withSpread(verdict.figure)} ${unit}`,
      holdsWords(verdict),
      (verdict.holds === false ? reasons[name] : undefined) ?? "",
    ];
  });
  return table(["target", "what", "wanted", "median (quartiles)", "holds", "remark"], rows, "text");
}

/** @param cells "figures": all but the first column are aligned to the right */
export function table(
  heads: readonly string[],
  rows: readonly (readonly string[])[],
  cells: "figures" | "text" = "figures",
): string {
  const line = (texts: readonly string[]): string => `| ${texts.join(" | ")} |`;
  const rule = heads.map((_, column) => (column === 0 || cells === "text" ? "---" : "--:"));
  return [line(heads), line(rule), ...rows.map(line)].join("\n");
}

function hasField(samples: readonly Sample[], field: Field): boolean {
  return samples.length > 0 && samples.every((sample) => field(sample) !== undefined);
}

function whole(value: number): string {
  return value.toFixed(0);
}

function mib(bytes: number): string {
  return (bytes / MIB).toFixed(0);
}
