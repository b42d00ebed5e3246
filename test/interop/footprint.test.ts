import { afterEach, beforeEach, expect, test } from "vitest";
import { expectNoGrowth, type Footprint, footprint } from "../support/footprint.ts";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;

describeEachQemu("what a run costs", (binary) => {
  const start = useHelpers();
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  async function within(limitMiB: number, channels: number): Promise<Footprint> {
    const seen = await footprint(lab, start, binary, { ramBytes: 512 * MIB, channels });
    expect(Math.max(seen.saveMiB, seen.restoreMiB, seen.verifyMiB)).toBeLessThanOrEqual(limitMiB);
    // Unused tails of extents are at most 2 MiB or a 64th of each channel, and the index is small.
    expect(seen.fileBytes - seen.dataBytes).toBeLessThan(
      (channels + 1) * 2 * MIB + seen.dataBytes / 64 + 8 * MIB,
    );
    return seen;
  }

  test("4 channels: at most 120 MiB of memory, and no more for a guest of 1.5 GiB", async () => {
    const small = await within(120, 4);
    // `npm run soak` does this with 4 GiB.
    const large = await footprint(lab, start, binary, { ramBytes: 1536 * MIB, channels: 4 });
    expectNoGrowth(small, large);
  });

  test("64 channels: at most 160 MiB of memory", () => within(160, 64));
  test("255 channels: at most 256 MiB of memory", () => within(256, 255));
});
