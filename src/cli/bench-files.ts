import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { BenchReport } from "../bench/bench.ts";
import { renderPage, stackSvgs } from "../bench/chart-page.ts";
import { renderCharts } from "../bench/charts.ts";
import { MultifdError } from "../errors.ts";
import { ioError } from "../io/file-io.ts";
import { benchTable, describeSource, headOf, recommendationLine } from "./bench-page.ts";
import { formatBytes } from "./format.ts";

/** Where charts are wanted. */
export interface ChartFiles {
  readonly svg: string | undefined;
  readonly html: string | undefined;
}

/** Throws IO, READ_ONLY or USAGE where no file can be made at one of these paths: said before minutes are spent. */
export function checkPlaces(paths: readonly (string | undefined)[]): void {
  for (const path of paths) {
    if (path === undefined) continue;
    try {
      fs.accessSync(dirname(path), fs.constants.W_OK | fs.constants.X_OK);
      if (fs.statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw isDirectory(path);
    } catch (error) {
      throw ioError(error, `writing ${path}`);
    }
  }
}

function isDirectory(path: string): MultifdError {
  return new MultifdError("USAGE", `${path} is a directory: name the file that is to be written`);
}

/** Draws what was measured. Throws what checkPlaces does, and NO_SPACE. */
export async function writeCharts(report: BenchReport, { svg, html }: ChartFiles): Promise<void> {
  if (svg === undefined && html === undefined) return;
  const subject = `${describeSource(report.source)}, ${formatBytes(report.ramBytes)}`;
  const charts = await renderCharts({ ...report, subject });
  if (svg !== undefined) await write(svg, stackSvgs(charts));
  if (html === undefined) return;
  const lines = [...headOf(report), recommendationLine(report)];
  await write(html, renderPage({ title: "multifd-helper bench", lines, charts, table: benchTable(report) }));
}

async function write(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (error) {
    throw ioError(error, `writing ${path}`);
  }
}
