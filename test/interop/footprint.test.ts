import { stat } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import { useHelpers } from "../support/helper-process.ts";
import { configure, type GuestSetup, Lab } from "../support/lab.ts";
import { peakOf } from "../support/peak-memory.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;

/** Checksums of pages (4 bytes each) and a bitmap, and as much again. */
const TABLES_MIB = 2;
/** What peaks of equal saves differ by. */
const NOISE_MIB = 16;

interface Footprint {
  readonly saveMiB: number;
  readonly restoreMiB: number;
  readonly verifyMiB: number;
  readonly fileBytes: number;
  readonly dataBytes: number;
}

describeEachQemu("what a run costs", (binary) => {
  const start = useHelpers();
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  /** Saves a guest, which is gone then. */
  async function saved(
    ramBytes: number,
    channels: number,
    format: "stream" | "mapped-ram" = "stream",
  ): Promise<{ image: string; saveMiB: number; dataBytes: number }> {
    const image = lab.file(`${ramBytes}-${channels}.${format}`);
    const source = await lab.source({ binary, ramBytes });
    await configure(source.vm, { channels });
    const out = `unix:${source.vm.socketPath("out")}`;
    const args = ["save", image, "--format", format, "--listen", out, "--workers", "2", "--json"];
    const save = start(args);
    const peak = peakOf(save);
    await save.waitEvent("listening");
    await migrateTo(source.vm.qmp, out);
    const { bytes } = await save.success();
    await source.vm.kill();
    return { image, saveMiB: await peak, dataBytes: Number(bytes) };
  }

  /** Saves, restores and verifies through the command line and watches how much memory each needs at its peak. */
  async function footprint(ramBytes: number, channels: number): Promise<Footprint> {
    const setup: GuestSetup = { binary, ramBytes };
    const { image, saveMiB, dataBytes } = await saved(ramBytes, channels);

    const into = `unix:${lab.file("in")}`;
    const destination = await lab.destination(setup, { channels }, into);
    const restore = start(["restore", image, "--connect", into, "--workers", "2", "--json"]);
    const restored = peakOf(restore);
    await restore.success();
    const restoreMiB = await restored;
    await waitMigration(destination.vm.qmp, 60_000);
    await destination.vm.kill();

    const verify = start(["verify", image, "--workers", "2", "--json"]);
    const verified = peakOf(verify);
    await verify.success();
    return {
      saveMiB,
      restoreMiB,
      verifyMiB: await verified,
      fileBytes: (await stat(image)).size,
      dataBytes,
    };
  }

  for (const [channels, limitMiB] of [
    [4, 120],
    [64, 160],
    [255, 256],
  ] as const) {
    test(`${channels} channels: at most ${limitMiB} MiB of memory`, async () => {
      const seen = await footprint(512 * MIB, channels);
      console.info(
        `footprint: QEMU ${binary.version}, 512 MiB, ${channels} channels: ${JSON.stringify(seen)}`,
      );
      expect(Math.max(seen.saveMiB, seen.restoreMiB, seen.verifyMiB)).toBeLessThanOrEqual(limitMiB);
      // Unused tails of extents are at most 2 MiB or a 64th of each channel, and the index is small.
      expect(seen.fileBytes - seen.dataBytes).toBeLessThan(
        (channels + 1) * 2 * MIB + seen.dataBytes / 64 + 8 * MIB,
      );
    });
  }

  test(`a save as mapped-ram needs ${TABLES_MIB} MiB more for each GiB of the guest at most`, async () => {
    const stream = await saved(512 * MIB, 4);
    const mapped = await saved(512 * MIB, 4, "mapped-ram");
    const figures = { stream: stream.saveMiB, mapped: mapped.saveMiB };
    console.info(`footprint: QEMU ${binary.version}, 512 MiB, save: ${JSON.stringify(figures)}`);
    expect(mapped.saveMiB - stream.saveMiB).toBeLessThanOrEqual(TABLES_MIB / 2 + NOISE_MIB);
  });

  test("memory does not grow with the guest", async () => {
    const small = await footprint(512 * MIB, 4);
    const large = await footprint(4096 * MIB, 4);
    console.info(`footprint: QEMU ${binary.version}, 4 GiB, 4 channels: ${JSON.stringify(large)}`);
    expect(large.saveMiB - small.saveMiB).toBeLessThanOrEqual(16);
    expect(large.restoreMiB - small.restoreMiB).toBeLessThanOrEqual(16);
    expect(large.verifyMiB - small.verifyMiB).toBeLessThanOrEqual(16);
  });
});
