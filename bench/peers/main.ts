import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { renderSvg } from "../../src/bench/chart.ts";
import { findRepoRoot } from "../../test/support/repo.ts";
import { pageCharts } from "./charts.ts";
import { measure } from "./measure.ts";
import { MEASUREMENTS } from "./measurements.ts";
import { measurementsNamed, PLAN_OPTIONS, planOf } from "./options.ts";
import { renderBenchmarks } from "./page.ts";
import { joinReports, type Report } from "./report.ts";
import { running } from "./running.ts";

/*
 * Measures the helper against its peers, and writes docs/benchmarks.md, the charts and the samples. 2 GiB and 7 rounds,
 * which are what it does unless told otherwise, take about 20 minutes. With --only NAME, as often as wanted, it measures these
 * anew and keeps the other samples of the last run; with --page it measures nothing and writes the page anew.
 */

await running(async (signal) => {
  const { values } = parseArgs({
    options: {
      ...PLAN_OPTIONS,
      out: { type: "string", default: join(findRepoRoot(), "docs") },
      only: { type: "string", multiple: true },
      page: { type: "boolean", default: false },
    },
  });
  const { out, only, page } = values;
  const earlier = page || only !== undefined ? await readReport(out) : null;
  if (page) await write(earlier ?? missing(out), out);
  else {
    const taken = await measure(planOf(values, measurementsNamed(only)), signal);
    await write(earlier === null ? taken : joinReports(earlier, taken), out);
  }
});

function samplesFile(out: string): string {
  return join(out, "benchmarks/samples.json");
}

/** Of the last run; null: there was none. */
async function readReport(out: string): Promise<Report | null> {
  const text = await readFile(samplesFile(out), "utf8").catch(() => null);
  return text === null ? null : (JSON.parse(text) as Report);
}

function missing(out: string): never {
  throw new Error(`${samplesFile(out)} is not there: measure first`);
}

/** The samples; and the page, once nothing is lacking. */
async function write(report: Report, out: string): Promise<void> {
  const beside = join(out, "benchmarks");
  await mkdir(beside, { recursive: true });
  await writeFile(samplesFile(out), `${JSON.stringify(report, rounded, 1)}\n`);
  const lacking = MEASUREMENTS.map(({ name }) => name).filter((name) => report.results[name] === undefined);
  if (lacking.length > 0) {
    console.log(`written: ${samplesFile(out)}; for the page there is no ${lacking.join(", ")} yet`);
    return;
  }
  for (const { file, chart } of pageCharts(report))
    await writeFile(join(beside, file), await renderSvg(chart));
  await writeFile(join(out, "benchmarks.md"), renderBenchmarks(report));
  console.log(`written: ${join(out, "benchmarks.md")}`);
}

/** To microseconds and milliseconds of processor time: what lies behind says nothing. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" ? Math.round(value * 1000) / 1000 : value;
}
