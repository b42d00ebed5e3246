import { expect, test } from "vitest";
import { fuzz } from "../fuzz/run.ts";
import { seededRandom } from "../support/random.ts";

test("28,000 damaged inputs, 300 flipped bits, 600 forged images and 150 hostile migrations do no harm", async () => {
  const { seed } = seededRandom();
  const report = await fuzz({ seed, inputs: 28_000, flips: 300, forgeries: 600, migrations: 150 });
  const total = Object.values(report.tried).reduce((sum, { inputs }) => sum + inputs, 0);
  expect(total).toBe(29_050);
  // Inputs that are all refused at their first bytes would prove nothing.
  const codecs = [
    "stream",
    "index",
    "metadata",
    "superblock",
    "vmdescription",
    "mapped",
    "map",
    "footer",
    "libvirt",
    "answers",
  ];
  for (const kind of [...codecs, "forged image", "placed migration"]) {
    expect(report.tried[kind]?.taken, `${kind}, seed ${seed}`).toBeGreaterThan(10);
  }
  expect(report.slowestMs, `seed ${seed}`).toBeLessThan(2000);
  expect(report.grownMib, `seed ${seed}`).toBeLessThan(128);
}, 120_000);
