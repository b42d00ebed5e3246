import { afterEach, beforeEach, expect, test } from "vitest";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { inspect, verify } from "../../src/index.ts";
import { type Channels, type GuestSetup, Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { ramFillingRings } from "../support/ring-ram.ts";

describeBothQemus("a paused guest comes back bit for bit", ({ seven, ten }) => {
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  type Machine = Pick<GuestSetup, "binary" | "machine">;

  /** Saves once, and restores the image into each of the destinations. */
  async function roundTrip(from: Machine, into: readonly Machine[], channels: Channels): Promise<void> {
    const image = lab.file("vm.mfd");
    const ramBytes = ramFillingRings(channels.channels);
    const source = await lab.source({ ...from, ramBytes });
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
    for (const to of into) {
      const destination = await lab.restore({ ...to, ramBytes }, channels, image);
      expect(await compareFiles(source.ram?.path as string, destination.ram?.path as string)).toEqual({
        pages: ramBytes / 4096,
        differing: 0,
        firstDifferingPage: null,
      });
    }
  }

  // The machine type that 7.2 gives a q35 by itself; 10 has to be told.
  const old = { binary: ten, machine: "pc-q35-7.2" };
  for (const [name, from, into] of [
    ["7.2 to 7.2 and to 10", { binary: seven }, [{ binary: seven }, old]],
    ["10 to 10", { binary: ten }, [{ binary: ten }]],
  ] as const) {
    for (const channels of [0, 1, 2, 4, 16, 64, 255]) {
      test(`${name}, ${channels === 0 ? "multifd off" : `${channels} channels`}`, () =>
        roundTrip(from, into, { channels }));
    }
    for (const compression of ["zlib", "zstd"] as const) {
      test(`${name}, 4 channels, ${compression}`, () => roundTrip(from, into, { channels: 4, compression }));
    }
  }
});
