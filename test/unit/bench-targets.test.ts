import { describe, expect, it } from "vitest";
import { cProgram } from "../../bench/peers/c-program.ts";
import { execCat } from "../../bench/peers/exec-cat.ts";
import { helper } from "../../bench/peers/helper.ts";
import { MEASUREMENTS, WAYS } from "../../bench/peers/measurements.ts";
import { qemuFile } from "../../bench/peers/qemu-file.ts";
import { qemuMappedRam } from "../../bench/peers/qemu-mapped-ram.ts";
import { REASONS } from "../../bench/peers/reasons.ts";
import { judge, TARGETS, type Verdict } from "../../bench/peers/targets.ts";
import { benchReport, PLAIN } from "../support/bench-report.ts";

const MIB = 2 ** 20;

function took(...times: readonly number[]): (typeof PLAIN)[] {
  return times.map((ms) => ({ ...PLAIN, ms }));
}

function verdictOn(name: string, differing: Parameters<typeof benchReport>[0]): Verdict {
  const verdict = judge(benchReport(differing)).find(({ target }) => target.name === name);
  if (verdict === undefined) throw new Error(`there is no target ${name}`);
  return verdict;
}

describe("targets", () => {
  it("take the median of the ratios of each round, not the ratio of medians", () => {
    const { figure } = verdictOn("save-vs-direct-io", {
      "save-4": { [WAYS.stream]: took(100, 1000, 2000), [WAYS.direct]: took(200, 1100, 6000) },
    });
    expect(figure.median).toBe(2);
  });

  it("hold at their bound and not below it", () => {
    const at = (ms: number): boolean | null =>
      verdictOn("save-vs-exec-cat", {
        "save-4": { [WAYS.stream]: took(500, 500, 500), [WAYS.execCat]: took(ms, ms, ms) },
      }).holds;
    expect([at(1000), at(999)]).toEqual([true, false]);
  });

  it("hold at an upper bound and not above it", () => {
    const at = (cpuSeconds: number): boolean | null =>
      verdictOn("cpu-vs-c-crc32", { "c-program": { [WAYS.stream]: Array(3).fill({ ...PLAIN, cpuSeconds }) } })
        .holds;
    expect([at(0.75), at(0.76)]).toEqual([true, false]);
  });

  it("hold verify against the fio that was faster", () => {
    const { figure } = verdictOn("verify-vs-fio", {
      verify: {
        [WAYS.verify]: took(1000, 1000, 1000),
        [WAYS.fio]: took(900, 900, 900),
        [WAYS.fioHuge]: took(300, 300, 300),
      },
    });
    expect(figure.median).toBeCloseTo(0.3);
  });

  it("tell of a save beside fio without judging it", () => {
    expect(verdictOn("save-vs-fio", {}).holds).toBeNull();
  });

  it("count the growth of peak RSS for each GiB by which the guest was larger", () => {
    const { figure } = verdictOn("rss-growth-mapped-ram", {
      memory: { "mapped-ram, large guest": Array(3).fill({ ...PLAIN, peakRssBytes: 121 * MIB }) },
    });
    expect(figure.median).toBeCloseTo(3);
  });

  it("count what comes after completed in percent of the save", () => {
    expect(verdictOn("tail-stream", {}).figure.median).toBe(2);
  });

  it("say which figure a report lacks", () => {
    expect(() => verdictOn("start", { start: { [WAYS.node]: [] } })).toThrow(
      'the report lacks a figure of "node -e 0" in start: measure again',
    );
  });

  it("have names of their own, and measurements that exist", () => {
    const names = TARGETS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    const measurements = MEASUREMENTS.map(({ name }) => name);
    expect(TARGETS.filter(({ measurement }) => !measurements.includes(measurement))).toEqual([]);
    expect(Object.keys(REASONS).filter((name) => !names.includes(name))).toEqual([]);
  });

  it("ask for ways by the names that the peers have", () => {
    const peers = [
      helper({ channels: 4 }),
      helper({ channels: 4, format: "mapped-ram" }),
      qemuMappedRam(4, true),
      qemuMappedRam(4, false),
      execCat,
      qemuFile,
      cProgram("drain", 4, "none"),
      cProgram("drain", 4, "crc32"),
    ];
    const { stream, mapped, direct, buffered, file, c, cChecked } = WAYS;
    expect(peers.map(({ name }) => name)).toEqual([
      ...[stream, mapped, direct, buffered, WAYS.execCat, file, c, cChecked],
    ]);
  });
});
