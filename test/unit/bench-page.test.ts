import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { pageCharts } from "../../bench/peers/charts.ts";
import { MEASUREMENTS, WAYS } from "../../bench/peers/measurements.ts";
import { renderBenchmarks } from "../../bench/peers/page.ts";
import { joinReports } from "../../bench/peers/report.ts";
import { TARGETS } from "../../bench/peers/targets.ts";
import { benchReport, PLAIN } from "../support/bench-report.ts";
import { findRepoRoot } from "../support/repo.ts";
import { run } from "../support/run.ts";

const slow = benchReport({ "save-4": { [WAYS.stream]: Array(3).fill({ ...PLAIN, ms: 2000 }) } });

/** The cells of a table's line that begins with this one. */
function cells(page: string, first: string): string[] {
  const line = page.split("\n").find((text) => text.startsWith(`| ${first} |`)) ?? "";
  return line.split("|").map((cell) => cell.trim());
}

describe("the page of benchmarks", () => {
  const page = renderBenchmarks(slow, { "save-vs-exec-cat": "The disk is slow." });

  it("tells the machine and what was compared", () => {
    const told = ["processor", "disk", "QEMU, fio", "memory"].map((what) => cells(page, what)[2]);
    expect(told).toEqual([
      "A Processor, 2 cores",
      "ext4 on /dev/disk (A Disk)",
      "10.0.2, fio-3.33",
      "16 GiB",
    ]);
    expect(page).toContain("One paused guest with 2 GiB of RAM");
  });

  it("has a line for each target, with figure, bound, verdict and remark", () => {
    const named = TARGETS.filter(({ name }) => cells(page, `\`${name}\``).length > 1);
    expect(named).toEqual(TARGETS);
    expect(cells(page, "`save-vs-exec-cat`").slice(3, 7)).toEqual([
      "≥ 2 ×",
      "0.50 (0.50–0.50) ×",
      "no",
      "The disk is slow.",
    ]);
  });

  it("keeps what was not measured anew, unless it is of another machine or guest", () => {
    const anew = { ...slow, results: { "save-64": slow.results["save-64"] ?? {} }, loads: { "save-64": 3 } };
    const joined = joinReports(slow, anew);
    expect(Object.keys(joined.results)).toEqual(MEASUREMENTS.map(({ name }) => name));
    expect(joined.loads).toEqual({ ...slow.loads, "save-64": 3 });
    expect(() => joinReports({ ...slow, ramBytes: 1 }, anew)).toThrow(/measure all anew/);
  });

  it("shows every chart that is written beside it", () => {
    const shown = [...page.matchAll(/\]\(benchmarks\/(\S+\.svg)\)/g)].map(([, file]) => file);
    expect(shown).toEqual(pageCharts(slow).map(({ file }) => file));
  });

  it("has a table for each measurement, with ratios to its first line", () => {
    expect(page.match(/^### /gm)).toHaveLength(Object.keys(slow.results).length);
    const [, table = ""] = page.split("### Save over 4 channels\n");
    expect(cells(table, WAYS.direct).slice(2, 5)).toEqual([
      "1000 (1000–1000)",
      "2.00 (2.00–2.00)",
      "0.50 (0.50–0.50)",
    ]);
  });

  it("has lines of tables that are all as wide as their heads", () => {
    const tables = page
      .trim()
      .split("\n\n")
      .filter((part) => part.startsWith("| "));
    const widths = tables.map((table) => new Set(table.split("\n").map((line) => line.split(" | ").length)));
    expect(widths.filter(({ size }) => size !== 1)).toEqual([]);
  });
});

describe("bench:check", () => {
  it("judges an earlier run's samples, and ends with 1 where a target does not hold", async () => {
    const directory = await mkdtemp(path.join(tmpdir(), "mfd-"));
    try {
      const samples = path.join(directory, "samples.json");
      await writeFile(samples, JSON.stringify(slow));
      const check = path.join(findRepoRoot(), "dist/bench/peers/check.js");
      const judged = (only: string) => run(process.execPath, [check, "--from", samples, "--only", only]);
      expect(await judged("save-vs-file")).toMatchObject({
        status: 1,
        stdout: expect.stringMatching(
          /^FAILS {2}0\.50 \(0\.50–0\.50\) × +≥ 2 × +save, 4 channels, against QEMU `file:`, one stream\n +\S.*\n$/,
        ),
      });
      expect(await judged("tail")).toMatchObject({
        status: 0,
        stdout: expect.stringMatching(/^(holds .*\n){2}$/),
      });
    } finally {
      await rm(directory, { recursive: true, force: true });
    }
  });
});
