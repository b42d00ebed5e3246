import type { BenchReport, UsedSource } from "../bench/bench.ts";
import { figureOf } from "../bench/chart.ts";
import { OPERATIONS, type Operation } from "../bench/choices.ts";
import { machineLines } from "../bench/machine.ts";
import type { Result } from "../bench/results.ts";
import type { Spread } from "../bench/statistics.ts";
import type { Combination, Sweep } from "../bench/sweep.ts";
import { formatBytes } from "./format.ts";

const MIB = 2 ** 20;

/** The same for programs: all samples, and the recommendation as options. */
export function benchAnswer(report: BenchReport): object {
  const { recommended, ...measured } = report;
  return {
    ...measured,
    recommended:
      recommended === null
        ? null
        : {
            operation: recommended.operation,
            ...combinationOf(recommended.chosen),
            reason: recommendationLine(report),
          },
  };
}

function combinationOf({ channels, workers, directIo, format, checksum }: Result): Combination {
  return { channels, workers, directIo, format, checksum };
}

/** All that was measured, as a person reads it. It ends with what to use on this host. */
export function benchPage(report: BenchReport): string {
  const { leftOut } = report;
  return [
    ...headOf(report),
    "",
    benchTable(report),
    ...leftOut.map(({ combination, reason }) => `left out: ${combination}, as ${reason}`),
    ...(leftOut.length > 0 ? [""] : []),
    recommendationLine(report),
    "",
  ].join("\n");
}

/** Where it was measured and what. */
export function headOf({ machine, source, ramBytes, rounds }: BenchReport): string[] {
  const times = rounds === 1 ? "one round" : `medians of ${rounds} rounds`;
  return [
    ...machineLines(machine),
    `${describeSource(source)}, ${formatBytes(ramBytes)} of RAM; ${times} after a warm-up, in alternating order`,
  ];
}

export function describeSource(source: UsedSource): string {
  if (source.kind === "generator") return `generator, pages: ${source.pages}`;
  return `QEMU ${source.version} with ${source.accelerator.toUpperCase()}, RAM: ${source.fill}`;
}

/** A table for each operation, with an empty line behind it. */
export function benchTable({ results, sweep }: BenchReport): string {
  return OPERATIONS.flatMap((operation) => {
    const ofOperation = results.filter((result) => result.operation === operation);
    return ofOperation.length === 0 ? [] : [operationTable(operation, ofOperation, sweep)];
  }).join("\n");
}

interface Column {
  readonly heading: string;
  readonly cell: (result: Result) => string | null;
}

function operationTable(operation: Operation, results: readonly Result[], sweep: Sweep): string {
  const columns = [...optionColumns(sweep), ...FIGURES].filter(
    ({ cell }) => cell(results[0] as Result) !== null,
  );
  const rows = [
    columns.map(({ heading }) => heading),
    ...results.map((result) => columns.map(({ cell }) => cell(result) ?? "")),
  ];
  const widths = columns.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  const lines = rows.map((row) =>
    `  ${row.map((cell, column) => cell.padStart(widths[column] as number)).join("  ")}`.trimEnd(),
  );
  return [operation, ...lines, ""].join("\n");
}

/** Those that were varied, and always the channels. */
function optionColumns(sweep: Sweep): Column[] {
  const names = {
    channels: "channels",
    workers: "workers",
    directIo: "direct-io",
    format: "format",
    checksum: "checksum",
  };
  return Object.entries(names).flatMap(([name, heading]) => {
    const option = name as keyof typeof names;
    return option === "channels" || sweep[option].length > 1
      ? [{ heading, cell: (result: Result) => String(result[option]) }]
      : [];
  });
}

const FIGURES: readonly Column[] = [
  { heading: "GiB/s", cell: ({ figures }) => withSpread(figures.gibPerSecond) },
  { heading: "CPU s/GiB", cell: ({ figures }) => withSpread(figures.cpuSecondsPerGib) },
  {
    heading: "QEMU CPU s/GiB",
    cell: ({ figures: { qemuCpuSecondsPerGib: spread } }) => spread && withSpread(spread),
  },
  { heading: "peak RSS MiB", cell: ({ figures }) => (figures.peakRssBytes.median / MIB).toFixed(0) },
  { heading: "listening ms", cell: ({ figures: { listeningMs: spread } }) => spread && withSpread(spread) },
  { heading: "tail ms", cell: ({ figures: { tailMs: spread } }) => spread && withSpread(spread) },
  {
    heading: "page cache MiB",
    cell: ({ figures }) => `+${(figures.cacheGrowthBytes.median / MIB).toFixed(0)}`,
  },
];

/** "1.90 (1.85–1.93)": the median, and where the middle half lies. */
function withSpread({ lower, median, upper }: Spread): string {
  return lower === upper ? figureOf(median) : `${figureOf(median)} (${figureOf(lower)}–${figureOf(upper)})`;
}

/** "recommended here: --channels 4 --format stream (1.90 GiB/s, 0.41 CPU s/GiB); …" */
export function recommendationLine({ recommended, sweep }: BenchReport): string {
  if (recommended === null) return "recommended here: nothing, as nothing was measured";
  const { chosen, best, operation } = recommended;
  const figures = ({ figures: { gibPerSecond, cpuSecondsPerGib } }: Result): string =>
    `${figureOf(gibPerSecond.median)} GiB/s, ${figureOf(cpuSecondsPerGib.median)} CPU s/GiB`;
  const reason =
    chosen === best
      ? `the fastest ${operation} of all that were measured`
      : `the fewest channels within 5 % of the fastest ${operation}, ${flagsOf(best, sweep)} (${figures(best)})`;
  return `recommended here: ${flagsOf(chosen, sweep)} (${figures(chosen)}); ${reason}`;
}

/** What has to be said on the command line to get it: what is the default there is not. */
function flagsOf({ channels, workers, directIo, format, checksum }: Result, sweep: Sweep): string {
  return [
    `--channels ${channels}`,
    ...(workers === "auto" ? [] : [`--workers ${workers}`]),
    `--format ${format}`,
    ...(sweep.directIo.length > 1 ? [`--direct-io ${directIo}`] : []),
    ...(checksum === "crc32" ? [] : [`--checksum ${checksum}`]),
  ].join(" ");
}
