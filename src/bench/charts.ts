import { type Chart, renderSvg } from "./chart.ts";
import { OPERATIONS, type Operation } from "./choices.ts";
import type { Figures, Result } from "./results.ts";
import type { Spread } from "./statistics.ts";
import { nameOf, type Sweep } from "./sweep.ts";

/** What the charts are of. */
export interface Charted {
  readonly sweep: Sweep;
  readonly rounds: number;
  readonly results: readonly Result[];
  /** "random pages, 1.0 GiB": what was moved. */
  readonly subject: string;
}

/** For each operation that was measured its throughput, and what processor time it took. As SVG documents. */
export async function renderCharts(charted: Charted): Promise<string[]> {
  const measured = OPERATIONS.filter((wanted) =>
    charted.results.some(({ operation }) => operation === wanted),
  );
  const charts = measured.flatMap((operation) => [
    chartOf(charted, operation, "throughput", "GiB/s", ({ gibPerSecond }) => gibPerSecond),
    chartOf(charted, operation, "processor time", "CPU s/GiB", ({ cpuSecondsPerGib }) => cpuSecondsPerGib),
  ]);
  return await Promise.all(charts.map((chart) => renderSvg(chart)));
}

function chartOf(
  { sweep, rounds, results, subject }: Charted,
  operation: Operation,
  what: string,
  unit: string,
  figure: (figures: Figures) => Spread,
): Chart {
  // Channels are the axis; everything else that varies is a colour.
  const rest: Sweep = { ...sweep, channels: [] };
  const ofOperation = results.filter((result) => result.operation === operation);
  const names = [...new Set(ofOperation.map((result) => seriesName(result, rest)))];
  const series = names.map((name) => ({
    name,
    values: sweep.channels.map((channels) => {
      const found = ofOperation.find(
        (result) => result.channels === channels && seriesName(result, rest) === name,
      );
      return found === undefined ? null : figure(found.figures);
    }),
  }));
  return {
    title: `${operation}: ${what}`,
    subtitle: `${subject}; ${rounds === 1 ? "one round" : `medians of ${rounds} rounds, whiskers from the first to the third quartile`}`,
    kind: "bars",
    unit,
    categoriesName: "multifd channels",
    categories: sweep.channels.map(String),
    series,
  };
}

function seriesName(result: Result, rest: Sweep): string {
  return nameOf(result, rest) || `${result.format}, ${result.directIo === "on" ? "O_DIRECT" : "page cache"}`;
}
