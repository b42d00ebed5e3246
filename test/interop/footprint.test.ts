import { afterEach, beforeEach, expect, test } from "vitest";
import { expectNoGrowth, type Footprint, footprint, saved } from "../support/footprint.ts";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;

/** Twice what 4 channels may take: one that kept the guest in memory would show. */
const RAM = 256 * MIB;
/** Checksums of pages (4 bytes each) and a bitmap, and as much again. */
const TABLES_MIB = 2;
/** What peaks of equal saves differ by. */
const NOISE_MIB = 16;

describeEachQemu("what a run costs", (binary) => {
  const start = useHelpers();
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  async function within(limitMiB: number, channels: number): Promise<Footprint> {
    const seen = await footprint({ lab, start, binary }, { ramBytes: RAM, channels });
    expect(Math.max(seen.saveMiB, seen.restoreMiB, seen.verifyMiB)).toBeLessThanOrEqual(limitMiB);
    // Unused tails of extents are at most 2 MiB or a 64th of each channel, and the index is small.
    expect(seen.fileBytes - seen.dataBytes).toBeLessThan(
      (channels + 1) * 2 * MIB + seen.dataBytes / 64 + 8 * MIB,
    );
    return seen;
  }

  test("4 channels: at most 128 MiB of memory, and no more for a guest of 1 GiB", async () => {
    const small = await within(128, 4);
    // `npm run soak` does this with 4 GiB.
    const large = await footprint({ lab, start, binary }, { ramBytes: 4 * RAM, channels: 4 });
    expectNoGrowth(small, large);
  });

  test("64 channels: at most 176 MiB of memory", () => within(176, 64));
  test("255 channels: at most 256 MiB of memory", () => within(256, 255));

  test(`a save as mapped-ram needs ${TABLES_MIB} MiB more for each GiB of the guest at most`, async () => {
    const place = { lab, start, binary };
    const size = { ramBytes: RAM, channels: 4 };
    const stream = await saved(place, size);
    const mapped = await saved(place, size, "mapped-ram");
    const figures = { stream: stream.saveMiB, mapped: mapped.saveMiB };
    console.info(`footprint: QEMU ${binary.version}, ${RAM / MIB} MiB, save: ${JSON.stringify(figures)}`);
    expect(mapped.saveMiB - stream.saveMiB).toBeLessThanOrEqual((TABLES_MIB * RAM) / 2 ** 30 + NOISE_MIB);
  });
});
