import { afterEach, beforeEach, expect, test } from "vitest";
import { runRestore } from "../../src/control/restore-run.ts";
import { runSave } from "../../src/control/save-run.ts";
import { compareFiles, type RamComparison } from "../../src/demo/ram-pattern.ts";
import { verify } from "../../src/index.ts";
import { type Channels, type GuestSetup, Lab } from "../support/lab.ts";
import { describeBothQemus, describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;
const RAM = 256 * MIB;
const drainUrl = new URL("../support/workers/delayed-drain.js", import.meta.url);
const DELAYED_DRAIN = { url: drainUrl, name: "drain" };
const NAIVE_DRAIN = { url: drainUrl, name: "drainNaively" };
const DELAYED_FEED = { url: new URL("../support/workers/delayed-feed.js", import.meta.url), name: "feed" };

const IDENTICAL = { pages: RAM / 4096, differing: 0, firstDifferingPage: null };

/** A round trip with the delays on both sides. */
async function roundTrip(
  lab: Lab,
  from: GuestSetup,
  to: GuestSetup,
  channels: Channels,
): Promise<RamComparison> {
  const image = lab.file("vm.mfd");
  const source = await lab.source(from);
  await lab.save(source, channels, { image, workers: 2 }, (options) =>
    runSave(options, { code: DELAYED_DRAIN }),
  );
  const destination = await lab.restore(to, channels, image, (options) => runRestore(options, DELAYED_FEED));
  return compareFiles(source.ram?.path as string, destination.ram?.path as string);
}

describeEachQemu("a disk that is slow at random, so that every ring runs full", (binary) => {
  const setup = { binary, ramBytes: RAM };
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  for (const channels of [0, 1, 2, 4, 16, 64, 255]) {
    test(`${channels} channels: RAM is identical`, async () => {
      expect(await roundTrip(lab, setup, setup, { channels })).toEqual(IDENTICAL);
    });
  }

  for (const compression of ["zlib", "zstd"] as const) {
    test(`4 channels, ${compression}: RAM is identical`, async () => {
      expect(await roundTrip(lab, setup, setup, { channels: 4, compression })).toEqual(IDENTICAL);
    });
  }

  test("a naive ring damages the image, and verify sees it", async () => {
    const image = lab.file("vm.mfd");
    const source = await lab.source(setup);
    await lab.save(source, { channels: 4 }, { image, workers: 2 }, (options) =>
      runSave(options, { code: NAIVE_DRAIN }),
    );
    await expect(verify({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });
});

describeBothQemus("a slow disk between QEMU 7.2 and 10", ({ seven, ten }) => {
  for (const channels of [0, 1, 2, 4, 16, 64]) {
    test(`${channels} channels: RAM is identical`, async () => {
      const lab = await Lab.open();
      try {
        const machine = { ramBytes: RAM, machine: "pc-q35-7.2" };
        const compared = await roundTrip(
          lab,
          { binary: seven, ...machine },
          { binary: ten, ...machine },
          { channels },
        );
        expect(compared).toEqual(IDENTICAL);
      } finally {
        await lab.close();
      }
    });
  }
});
