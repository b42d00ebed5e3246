import type { Chart } from "../../src/bench/chart.ts";
import { type Spread, spreadOf } from "../../src/bench/statistics.ts";
import { type Field, fasterFio, timeOf, valuesOf } from "./figures.ts";
import { RESTORED_OVER, SAVED_OVER, WAYS } from "./measurements.ts";
import type { Report } from "./report.ts";
import { sizeWords } from "./words.ts";

/** A chart, and the name of its file beside the page. */
export interface PageChart {
  readonly file: string;
  readonly chart: Chart;
}

const GIB = 2 ** 30;
const WHISKERS = "medians; whiskers from the first to the third quartile";
const PARALLEL = [WAYS.stream, WAYS.mapped, WAYS.direct, WAYS.buffered];
/** Saves at 4 channels, from what is oldest to what the disk can do. */
const SAVES = [
  ["save-4", WAYS.execCat],
  ["save-4", WAYS.file],
  ["save-4", WAYS.buffered],
  ["save-4", WAYS.direct],
  ["save-4", WAYS.mapped],
  ["save-4", WAYS.stream],
  ["c-program", WAYS.cChecked],
  ["c-program", WAYS.c],
] as const;
const CPU_OF = [WAYS.stream, WAYS.cChecked, WAYS.unchecked, WAYS.c];

/** What the page shows. */
export function pageCharts(report: Report): PageChart[] {
  return [
    { file: "save-channels.svg", chart: byChannels(report, "save", SAVED_OVER, PARALLEL) },
    { file: "save-peers.svg", chart: savePeers(report) },
    {
      file: "restore-channels.svg",
      chart: byChannels(report, "restore", RESTORED_OVER, PARALLEL.slice(0, 3)),
    },
    { file: "save-cpu.svg", chart: cpuSeconds(report) },
  ];
}

function byChannels(
  report: Report,
  run: "save" | "restore",
  counts: readonly number[],
  ways: readonly string[],
): Chart {
  const verb = run === "save" ? "Saving" : "Restoring";
  return {
    title: `${verb} ${sizeWords(report.ramBytes)} of random bytes`,
    subtitle: WHISKERS,
    kind: "bars",
    unit: "GiB/s",
    categoriesName: "multifd channels",
    categories: counts.map(String),
    series: ways.map((way) => ({
      name: run === "save" && way === WAYS.buffered ? `${way} (not on disk yet)` : way,
      values: counts.map((channels) => throughput(report, `${run}-${channels}`, way)),
    })),
  };
}

function savePeers(report: Report): Chart {
  const limit = fasterFio(report.results, "limit");
  const saves = [...SAVES, ["limit", limit]] as const;
  return {
    title: `Saving ${sizeWords(report.ramBytes)} of random bytes, 4 channels where there are any`,
    subtitle: `${WHISKERS}; "on disk": with an fsync afterwards, where the way does not do that itself`,
    kind: "bars",
    unit: "GiB/s",
    categories: saves.map(([, way]) =>
      way === limit ? "fio" : way.replace(", ", ",\n").replace(" mapped-ram", "\nmapped-ram"),
    ),
    series: [
      {
        name: "until it is called completed",
        values: saves.map(([measurement, way]) => throughput(report, measurement, way)),
      },
      {
        name: "until it is on disk",
        values: saves.map(([measurement, way]) =>
          throughput(report, measurement, way, ({ ms, syncMs = 0 }) => ms + syncMs),
        ),
      },
    ],
  };
}

function cpuSeconds({ results, ramBytes }: Report): Chart {
  const perGib = (way: string): Spread =>
    spreadOf(
      valuesOf(results, "c-program", way, ({ cpuSeconds }) => cpuSeconds).map((s) => (s * GIB) / ramBytes),
    );
  return {
    title: "Processor time of the receiving program, 4 channels",
    subtitle: `user and system, with the start of Node.js; ${WHISKERS}`,
    kind: "bars",
    unit: "s per GiB",
    categories: [...CPU_OF],
    series: [{ name: "user and system", values: CPU_OF.map(perGib) }],
  };
}

/** In GiB of guest RAM per second. */
export function throughput(report: Report, measurement: string, way: string, time: Field = timeOf): Spread {
  const gibs = report.ramBytes / GIB;
  return spreadOf(valuesOf(report.results, measurement, way, time).map((ms) => (gibs * 1000) / ms));
}
