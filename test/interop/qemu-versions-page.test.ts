import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { findRepoRoot } from "../support/repo.ts";

const read = (path: string): string => readFileSync(join(findRepoRoot(), path), "utf8");

const VERSIONS = ["7.2", "8.0 to 9.0", "9.1 and 9.2", "10.0"] as const;
type Version = (typeof VERSIONS)[number];

/** What a test says that runs with that QEMU; those between are on no machine that runs the tests. */
const USES: Readonly<Record<Version, RegExp | null>> = {
  "7.2": /describeEachQemu|\bseven\b|describeWithLibvirt/,
  "8.0 to 9.0": null,
  "9.1 and 9.2": null,
  "10.0": /describeEachQemu|\bten\b|describeLinuxGuest/,
};

const table = read("docs/qemu-versions.md")
  .split("\n")
  .filter((line) => line.startsWith("|"))
  .map((line) => line.split("|").slice(1, -1))
  .map((row) => row.map((cell) => cell.trim()))
  .filter((row) => row.length === 1 + VERSIONS.length);
const [heading = [], , ...rows] = table;
const cells = rows.flatMap(([what = "", ...row]) =>
  row.map((cell, index) => [what, VERSIONS[index] as Version, cell] as const),
);

test("the table has these versions, and rows", () => {
  expect(heading.slice(1)).toEqual(VERSIONS);
  expect(rows.length).toBeGreaterThan(15);
});

test.each(cells)("%s, QEMU %s: %s", (_what, version, cell) => {
  const tests = [...cell.matchAll(/`((?:interop|faults|unit)\/[\w/-]+)`/g)].map(([, name]) => name);
  const words = cell
    .replace(/`[^`]*`/g, "")
    .replace(/[,:;]/g, "")
    .trim();
  expect(words).toMatch(/^$|^not offered$|^(8\.[x0] not offered (from )?[89]\.[01] )?not tested$/);
  expect(tests.length > 0 || words !== "").toBe(true);
  for (const name of tests) expect(read(`test/${name}.test.ts`)).toMatch(USES[version] ?? /$^/);
});
