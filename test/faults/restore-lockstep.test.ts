import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { restore } from "../../src/index.ts";
import { buildImage, type ChannelContent, noiseChannels, readChannels } from "../support/built-image.ts";
import { Lab } from "../support/lab.ts";
import { saveLiveGuest } from "../support/live-image.ts";
import { LockstepDestination } from "../support/lockstep-destination.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { useVms } from "../support/vms.ts";

const MIB = 2 ** 20;

/** Restores into a destination that watches the lockstep, and expects no word of complaint. */
async function expectLockstep(
  image: string,
  socket: string,
  channels: readonly ChannelContent[],
  workers: number,
): Promise<void> {
  const random = seededRandom();
  const destination = await LockstepDestination.listen(socket, channels.length, random);
  try {
    const [, received] = await Promise.all([
      restore({ image, connect: destination.address, workers }),
      destination.finished,
    ]);
    expect(destination.violations(channels), `TEST_SEED=${random.seed}`).toEqual([]);
    for (const [number, { bytes }] of channels.entries()) expect(received[number]?.equals(bytes)).toBe(true);
  } finally {
    await destination.close();
  }
}

describe("main goes in lockstep with the channels", () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "mfd-lockstep-"));
  });
  afterEach(() => rm(directory, { recursive: true }));

  const shapes = {
    "1 channel with 5 long epochs": { multifdChannels: 1, barriers: 5, epochBytes: MIB },
    "4 channels with 10 epochs": { multifdChannels: 4, barriers: 10, epochBytes: 512 * 1024 },
    "4 channels with 100 short epochs": { multifdChannels: 4, barriers: 100, epochBytes: 20_000 },
    "16 channels with 8 epochs": { multifdChannels: 16, barriers: 8, epochBytes: 256 * 1024 },
    "64 channels with 3 epochs": { multifdChannels: 64, barriers: 3, epochBytes: 128 * 1024 },
  };
  for (const [name, shape] of Object.entries(shapes)) {
    for (const workers of [1, 2]) {
      test(`${name} on ${workers === 1 ? "one worker" : "two workers"}`, async () => {
        const channels = noiseChannels(seededRandom(), shape);
        const image = join(directory, "image");
        await writeFile(image, buildImage(channels));
        await expectLockstep(image, join(directory, "socket"), channels, workers);
      });
    }
  }

  test("multifd off: main alone, to its end", async () => {
    const [main] = noiseChannels(seededRandom(), { multifdChannels: 0, barriers: 0, epochBytes: 0 });
    const image = join(directory, "image");
    const channels = [main as ChannelContent];
    await writeFile(image, buildImage(channels));
    await expectLockstep(image, join(directory, "socket"), channels, 1);
  });
});

describeEachQemu("lockstep with the barriers of a guest that ran while it was saved", (binary) => {
  const vms = useVms();
  let lab: Lab;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  test("4 channels", async () => {
    const image = lab.file("live.mfd");
    await saveLiveGuest(vms, { binary, ramBytes: 64 * MIB, channels: { channels: 4 }, rounds: 4, image });
    const { channels } = await readChannels(image);
    expect(channels[0]?.marks.length).toBeGreaterThan(4);
    await expectLockstep(image, lab.file("socket"), channels, 2);
  });
});
