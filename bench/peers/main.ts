import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { renderSvg } from "../../src/bench/chart.ts";
import { findRepoRoot } from "../../test/support/repo.ts";
import { pageCharts } from "./charts.ts";
import { measure } from "./measure.ts";
import { PLAN_OPTIONS, planOf } from "./options.ts";
import { renderBenchmarks } from "./page.ts";
import type { Report } from "./report.ts";
import { running } from "./running.ts";

/*
 * Measures the helper against its peers, and writes docs/benchmarks.md, the charts and the samples. 2 GiB and 7 rounds,
 * which are what it does unless told otherwise, take about 20 minutes.
 */

await running(async (signal) => {
  const { values } = parseArgs({
    options: { ...PLAN_OPTIONS, out: { type: "string", default: join(findRepoRoot(), "docs") } },
  });
  await write(await measure(planOf(values), signal), values.out);
  console.log(`written: ${join(values.out, "benchmarks.md")}`);
});

async function write(report: Report, directory: string): Promise<void> {
  const beside = join(directory, "benchmarks");
  await mkdir(beside, { recursive: true });
  await writeFile(join(beside, "samples.json"), `${JSON.stringify(report, rounded, 1)}\n`);
  for (const { file, chart } of pageCharts(report))
    await writeFile(join(beside, file), await renderSvg(chart));
  await writeFile(join(directory, "benchmarks.md"), renderBenchmarks(report));
}

/** To microseconds and milliseconds of processor time: what lies behind says nothing. */
function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" ? Math.round(value * 1000) / 1000 : value;
}
