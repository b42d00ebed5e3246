import { afterEach, beforeEach, expect, test } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { inspect, verify } from "../../src/index.ts";
import { type Channels, type GuestSetup, Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";

const MIB = 2 ** 20;
const RAM = 256 * MIB;
const IDENTICAL = { pages: RAM / 4096, differing: 0, firstDifferingPage: null };

describeBothQemus("a paused guest comes back bit for bit", ({ seven, ten }) => {
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  async function roundTrip(from: GuestSetup, to: GuestSetup, channels: Channels): Promise<void> {
    const image = lab.file("vm.mfd");
    const source = await lab.source(from);
    const saved = await lab.save(source, channels, { image, workers: 2, directIo: "auto" });
    expect(saved.image.multifdChannels).toBe(channels.channels);
    expect(await inspect({ image })).toMatchObject({
      sealed: true,
      destination: { multifdChannels: channels.channels, multifdCompression: channels.compression ?? "none" },
      metadata: { evidence: { verdict: "complete", decidedBy: "structure" } },
    });
    expect(await verify({ image, workers: 2 })).toMatchObject({
      checked: "checksums and structure",
      bytes: saved.bytes,
    });
    const destination = await lab.restore(to, channels, image);
    expect(await compareFiles(source.ram?.path as string, destination.ram?.path as string)).toEqual(
      IDENTICAL,
    );
  }

  const setups = {
    "7.2 to 7.2": [
      { binary: seven, ramBytes: RAM },
      { binary: seven, ramBytes: RAM },
    ],
    "10 to 10": [
      { binary: ten, ramBytes: RAM },
      { binary: ten, ramBytes: RAM },
    ],
    "7.2 to 10": [
      { binary: seven, ramBytes: RAM, machine: "pc-q35-7.2" },
      { binary: ten, ramBytes: RAM, machine: "pc-q35-7.2" },
    ],
  } as const;
  const counts = {
    "7.2 to 7.2": [0, 1, 2, 4, 16, 64, 255],
    "10 to 10": [0, 1, 2, 4, 16, 64, 255],
    "7.2 to 10": [0, 1, 2, 4, 16, 64],
  };

  for (const [name, [from, to]] of Object.entries(setups)) {
    for (const channels of counts[name as keyof typeof counts]) {
      test(`${name}, ${channels === 0 ? "multifd off" : `${channels} channels`}`, () =>
        roundTrip(from, to, { channels }));
    }
    for (const compression of ["zlib", "zstd"] as const) {
      test(`${name}, 4 channels, ${compression}`, () => roundTrip(from, to, { channels: 4, compression }));
    }
  }
});
