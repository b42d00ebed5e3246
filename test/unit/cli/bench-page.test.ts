import { describe, expect, test } from "vitest";
import { benchAnswer, benchPage, benchTable, recommendationLine } from "../../../src/cli/bench-page.ts";
import { BenchProgress } from "../../../src/cli/bench-progress.ts";
import { reportOf, savesOf } from "../../support/bench-results.ts";

const RESULTS = savesOf([
  [{ channels: 1 }, [1, 1.1, 1.2]],
  [{ channels: 4 }, [2, 2, 2]],
  [{ channels: 8 }, [2.05, 2.05, 2.05]],
]);

describe("the page of a benchmark", () => {
  test("has a table with medians and spread, and only the options that vary", () => {
    expect(benchTable(reportOf(RESULTS))).toBe(`save
  channels             GiB/s  CPU s/GiB  peak RSS MiB  listening ms  tail ms  page cache MiB
         1  1.10 (1.05–1.15)       0.50           100          80.0     12.0              +1
         4              2.00       0.50           100          80.0     12.0              +1
         8              2.05       0.50           100          80.0     12.0              +1
`);
    const wider = benchTable(reportOf(RESULTS, { format: ["stream", "mapped-ram"] }));
    expect(wider).toMatch(/^ {2}channels +format +GiB/m);
  });

  test("ends with one line that says what to use, and why", () => {
    const line =
      "recommended here: --channels 4 --format stream (2.00 GiB/s, 0.50 CPU s/GiB); the fewest channels within 5 % of the fastest save, --channels 8 --format stream (2.05 GiB/s, 0.50 CPU s/GiB)";
    expect(recommendationLine(reportOf(RESULTS))).toBe(line);
    expect(benchPage(reportOf(RESULTS)).endsWith(`\n\n${line}\n`)).toBe(true);
  });

  test("says what has to be said to get the recommended one", () => {
    const results = savesOf([[{ workers: 2, directIo: "off", checksum: "none" }, [1]]]);
    const line = recommendationLine(reportOf(results, { directIo: ["on", "off"] }));
    expect(line).toContain("--channels 4 --workers 2 --format stream --direct-io off --checksum none (1.00");
    expect(line).toMatch(/; the fastest save of all that were measured$/);
  });

  test("begins with the machine, and names what was left out", () => {
    const left = { combination: "--direct-io on", reason: "the file system refuses O_DIRECT" };
    const page = benchPage({ ...reportOf(RESULTS), leftOut: [left] });
    expect(page).toMatch(/^A processor, 2 cores, 8\.0 GiB of memory; Linux 6\.1, Node\.js 20\.19\.0\n/);
    expect(page).toContain("/images: ext4 on /dev/vda1; load 0.1\n");
    expect(page).toContain("generator, pages: random, 1.0 GiB of RAM; medians of 3 rounds");
    expect(page).toContain("\nleft out: --direct-io on, as the file system refuses O_DIRECT\n");
  });
});

test("programs get every sample, and the recommendation as options", () => {
  const answer = JSON.parse(JSON.stringify(benchAnswer(reportOf(RESULTS))));
  expect(answer.results[0].samples).toHaveLength(3);
  expect(answer.results[0]).toMatchObject({ operation: "save", channels: 1, workers: "auto" });
  expect(answer.recommended).toMatchObject({ operation: "save", channels: 4, format: "stream" });
});

describe("progress", () => {
  const told = { round: 1, rounds: 3, way: "4 channels", done: 2, total: 8, elapsedMs: 4000 };

  test("is one line drawn over itself on a terminal", () => {
    let written = "";
    const terminal = { isTTY: true, write: (text: string) => (written += text) };
    const progress = new BenchProgress(terminal);
    progress.show(told);
    expect(written).toBe("\r\u001b[Kround 1 of 3: 4 channels (2 of 8 done, 12.0 s left)");
    progress.end();
    expect(written.endsWith("\r\u001b[K")).toBe(true);
  });

  test("is a line for each round elsewhere", () => {
    const lines: string[] = [];
    const progress = new BenchProgress({ write: (text) => lines.push(text) });
    for (const round of [0, 0, 1, 1]) progress.show({ ...told, round, done: 0 });
    expect(lines).toEqual([
      "warm-up: 4 channels (0 of 8 done)\n",
      "round 1 of 3: 4 channels (0 of 8 done)\n",
    ]);
  });
});
