import { afterEach, beforeEach, expect, test } from "vitest";
import { runRestore } from "../../src/control/restore-run.ts";
import { runSave } from "../../src/control/save-run.ts";
import { compareFiles, type RamComparison } from "../../src/demo/ram-pattern.ts";
import { verify } from "../../src/index.ts";
import { type Channels, type GuestSetup, Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { ramFillingRings } from "../support/ring-ram.ts";

const MIB = 2 ** 20;
const drainUrl = new URL("../support/workers/delayed-drain.js", import.meta.url);
const DELAYED_DRAIN = { url: drainUrl, name: "drain" };
const NAIVE_DRAIN = { url: drainUrl, name: "drainNaively" };
const DELAYED_FEED = { url: new URL("../support/workers/delayed-feed.js", import.meta.url), name: "feed" };

/** A round trip with the delays on both sides, into each of the destinations; answers what came back. */
async function roundTrip(
  lab: Lab,
  from: GuestSetup,
  into: readonly GuestSetup[],
  channels: Channels,
): Promise<RamComparison[]> {
  const image = lab.file("vm.mfd");
  const source = await lab.source(from);
  await lab.save(source, channels, { image, workers: 2 }, (options) =>
    runSave(options, { code: DELAYED_DRAIN }),
  );
  const compared: RamComparison[] = [];
  for (const to of into) {
    const destination = await lab.restore(to, channels, image, (options) =>
      runRestore(options, DELAYED_FEED),
    );
    compared.push(await compareFiles(source.ram?.path as string, destination.ram?.path as string));
  }
  return compared;
}

describeBothQemus("a disk that is slow at random, so that every ring runs full", ({ seven, ten }) => {
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  // The machine type that 7.2 gives a q35 by itself; 10 has to be told.
  const old = { binary: ten, machine: "pc-q35-7.2" };
  for (const [name, from, into] of [
    ["7.2 to 7.2 and to 10", { binary: seven }, [{ binary: seven }, old]],
    ["10 to 10", { binary: ten }, [{ binary: ten }]],
  ] as const) {
    const expectIdentical = async (channels: Channels): Promise<void> => {
      const ramBytes = ramFillingRings(channels.channels);
      const destinations = into.map((to) => ({ ...to, ramBytes }));
      const identical = { pages: ramBytes / 4096, differing: 0, firstDifferingPage: null };
      expect(await roundTrip(lab, { ...from, ramBytes }, destinations, channels)).toEqual(
        into.map(() => identical),
      );
    };

    for (const channels of [0, 1, 2, 4, 16, 64, 255]) {
      test(`${name}, ${channels} channels: RAM is identical`, () => expectIdentical({ channels }));
    }

    for (const compression of ["zlib", "zstd"] as const) {
      test(`${name}, 4 channels, ${compression}: RAM is identical`, () =>
        expectIdentical({ channels: 4, compression }));
    }

    // Whether a buffer is taken too early is a matter of luck: with this much RAM it happens again and again.
    test(`${name}: a naive ring damages the image, and verify sees it`, async () => {
      const image = lab.file("vm.mfd");
      const source = await lab.source({ ...from, ramBytes: 256 * MIB });
      await lab.save(source, { channels: 4 }, { image, workers: 2 }, (options) =>
        runSave(options, { code: NAIVE_DRAIN }),
      );
      await expect(verify({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
    });
  }
});
