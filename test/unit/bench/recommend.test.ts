import { describe, expect, test } from "vitest";
import { recommend } from "../../../src/bench/recommend.ts";
import { resultsOf } from "../../../src/bench/results.ts";
import { PLAIN, sampleOf, savesOf } from "../../support/bench-results.ts";

const GIB = 2 ** 30;

describe("the recommendation", () => {
  test("is the fewest channels within 5 % of the best", () => {
    const found = recommend(
      savesOf([
        [{ channels: 1 }, [1.5]],
        [{ channels: 2 }, [1.93]],
        [{ channels: 4 }, [1.91]],
        [{ channels: 8 }, [2]],
      ]),
    );
    expect(found?.chosen.channels).toBe(2);
    expect(found?.best.channels).toBe(8);
  });

  test("is the faster of two with as many channels", () => {
    const found = recommend(
      savesOf([
        [{ format: "mapped-ram" }, [1.95]],
        [{ format: "stream" }, [2]],
      ]),
    );
    expect(found?.chosen.format).toBe("stream");
  });

  test("goes by medians, not by a lucky round", () => {
    const found = recommend(
      savesOf([
        [{ channels: 1 }, [1, 1, 9]],
        [{ channels: 4 }, [2, 2, 2]],
      ]),
    );
    expect(found?.chosen.channels).toBe(4);
  });

  test("has checksums, however fast it goes without", () => {
    const results = savesOf([
      [{ checksum: "none" }, [3]],
      [{ checksum: "crc32" }, [2]],
    ]);
    expect(recommend(results)?.chosen.checksum).toBe("crc32");
    expect(recommend(results.filter(({ checksum }) => checksum === "none"))?.chosen.checksum).toBe("none");
  });

  test("goes by the save, and without one by what was measured", () => {
    const both = resultsOf(
      [
        [{ ...PLAIN, channels: 1 }, [{ save: sampleOf(2), restore: sampleOf(1) }]],
        [{ ...PLAIN, channels: 4 }, [{ save: sampleOf(1), restore: sampleOf(2) }]],
      ],
      GIB,
    );
    expect(recommend(both)).toMatchObject({ operation: "save", chosen: { channels: 1 } });
    const restores = both.filter(({ operation }) => operation === "restore");
    expect(recommend(restores)).toMatchObject({ operation: "restore", chosen: { channels: 4 } });
    expect(recommend([])).toBeNull();
  });
});

test("figures are per GiB of the guest's RAM", () => {
  const sample = { ...sampleOf(1), elapsedMs: 4000, cpuSeconds: 3, qemuCpuSeconds: 1 };
  const [result] = resultsOf([[PLAIN, [{ save: sample }]]], 2 * GIB);
  expect(result?.figures.gibPerSecond.median).toBe(0.5);
  expect(result?.figures.cpuSecondsPerGib.median).toBe(1.5);
  expect(result?.figures.qemuCpuSecondsPerGib?.median).toBe(0.5);
});
