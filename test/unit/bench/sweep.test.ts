import { describe, expect, test } from "vitest";
import { combinationsOf, nameOf, optionsOf, type Sweep } from "../../../src/bench/sweep.ts";
import { PLAIN } from "../../support/bench-results.ts";

const SWEEP: Sweep = {
  channels: [1, 4],
  workers: ["auto"],
  directIo: ["on"],
  format: ["stream", "mapped-ram"],
  checksum: ["crc32"],
};
describe("a sweep", () => {
  test("is every combination, once", () => {
    const { combinations, leftOut } = combinationsOf(SWEEP, true);
    const found = combinations.map(({ channels, format }) => `${channels} ${format}`);
    expect(found).toEqual(["1 stream", "4 stream", "1 mapped-ram", "4 mapped-ram"]);
    expect(leftOut).toEqual([]);
  });

  test("leaves out workers without a connection, main's counted, and says it once", () => {
    const { combinations, leftOut } = combinationsOf({ ...SWEEP, workers: [1, 2, 3] }, true);
    const threads = combinations.filter(({ channels }) => channels === 1).map(({ workers }) => workers);
    expect(threads).toEqual([1, 2, 1, 2]);
    expect(leftOut.map(({ combination }) => combination)).toEqual(["--channels 1 --workers 3"]);
    expect(leftOut[0]?.reason).toContain("2 connections");
  });

  test("leaves out O_DIRECT where the file system refuses it", () => {
    const { combinations, leftOut } = combinationsOf({ ...SWEEP, directIo: ["on", "off"] }, false);
    expect(new Set(combinations.map(({ directIo }) => directIo))).toEqual(new Set(["off"]));
    expect(leftOut).toEqual([{ combination: "--direct-io on", reason: "the file system refuses O_DIRECT" }]);
  });
});

test("a combination is named by what varies", () => {
  expect(nameOf(PLAIN, SWEEP)).toBe("4 channels, stream");
  const wide: Sweep = {
    ...SWEEP,
    workers: ["auto", 1],
    directIo: ["on", "off"],
    checksum: ["crc32", "none"],
  };
  expect(nameOf({ ...PLAIN, channels: 1, workers: 1, directIo: "off", checksum: "none" }, wide)).toBe(
    "1 channel, 1 worker, stream, page cache, none",
  );
});

test("a combination is a command line, on which auto is not said", () => {
  expect(optionsOf(PLAIN).join(" ")).toBe("--channels 4 --direct-io on --format stream --checksum crc32");
  expect(optionsOf({ ...PLAIN, workers: 2 }).join(" ")).toContain("--workers 2");
});
