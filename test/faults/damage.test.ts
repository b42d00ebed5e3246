import { Buffer } from "node:buffer";
import { type FileHandle, open } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { inspect, MultifdError, restore, type UsedRange, verify } from "../../src/index.ts";
import { type ChannelContent, readChannels } from "../support/built-image.ts";
import { Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { RecordingDestination } from "../support/recording-destination.ts";

const MIB = 2 ** 20;
const REFUSALS = ["IMAGE_DAMAGED", "NOT_AN_IMAGE", "NOT_SEALED", "UNSUPPORTED_VERSION"];
/** Where the damage goes and how often: 200 places. */
const PLACES = [
  ["superblock", 35],
  ["metadata", 35],
  ["index", 35],
  ["main", 35],
  ["channel", 60],
] as const;
const FOUND_EARLY: readonly string[] = ["superblock", "metadata", "index"];

/** The library's error that a call rejects with; undefined when it does not. */
async function failureOf(call: Promise<unknown>): Promise<MultifdError | undefined> {
  try {
    await call;
    return undefined;
  } catch (error) {
    if (error instanceof MultifdError) return error;
    throw error;
  }
}

describeBothQemus("damage to an image of a real guest", ({ ten }) => {
  let lab: Lab;
  let image: string;
  let file: FileHandle;
  let ranges: readonly UsedRange[];
  let channels: readonly ChannelContent[];
  let random: Random;

  beforeAll(async () => {
    lab = await Lab.open();
    image = lab.file("vm.mfd");
    const source = await lab.source({ binary: ten, ramBytes: 64 * MIB });
    await lab.save(source, { channels: 4 }, { image });
    await source.vm.quit();
    ({ ranges } = await inspect({ image }));
    ({ channels } = await readChannels(image));
    file = await open(image, "r+");
  });
  afterAll(async () => {
    await file.close();
    await lab.close();
  });

  beforeEach(() => {
    random = seededRandom();
  });

  /** Restores into a new destination; answers what came of it and what the destination saw. */
  async function restored(): Promise<{ failure: MultifdError | undefined; seen: RecordingDestination }> {
    const seen = await RecordingDestination.listen(lab.file("destination"), channels);
    try {
      return { failure: await failureOf(restore({ image, connect: seen.address, workers: 1 })), seen };
    } finally {
      await seen.close();
    }
  }

  /** Changes one byte of the file and answers how to change it back. */
  async function flip(offset: number): Promise<() => Promise<unknown>> {
    const { buffer } = await file.read(Buffer.alloc(1), 0, 1, offset);
    const old = buffer.readUInt8(0);
    await file.write(Buffer.from([old ^ (1 + random.integer(255))]), 0, 1, offset);
    return () => file.write(Buffer.from([old]), 0, 1, offset);
  }

  /** Both refuse, and the destination sees nothing that is not true. @returns how many connections it saw */
  async function expectFound(what: string): Promise<number> {
    const hint = `${what}, TEST_SEED=${random.seed}`;
    const verified = await failureOf(verify({ image, workers: 1 }));
    const { failure, seen } = await restored();
    for (const [command, found] of Object.entries({ verify: verified, restore: failure })) {
      expect(found?.code, `${command}: ${hint}`).toBeOneOf(REFUSALS);
      expect(found?.exitStatus, `${command}: ${hint}`).toBe(4);
    }
    expect(seen.firstWrong, hint).toBeNull();
    return seen.peers.length;
  }

  for (const [area, count] of PLACES) {
    test(`a changed byte is found at ${count} places of ${area}`, async () => {
      const candidates = ranges.filter(({ what }) => what.startsWith(area));
      for (let place = 0; place < count; place++) {
        const range = random.pick(candidates);
        const offset = range.offset + random.integer(range.length);
        const restoreByte = await flip(offset);
        const connections = await expectFound(`byte ${offset} of ${range.what}`);
        if (FOUND_EARLY.includes(area)) expect(connections).toBe(0);
        await restoreByte();
      }
    }, 120_000);
  }

  test("the first block of any channel is checked before the first connection", async () => {
    for (const { what } of ranges.filter(({ what }) => what === "main" || what.startsWith("channel"))) {
      const first = ranges.find((range) => range.what === what) as UsedRange;
      const restoreByte = await flip(first.offset + random.integer(Math.min(first.length, 64)));
      expect(await expectFound(`the beginning of ${what}`)).toBe(0);
      await restoreByte();
    }
  });

  test("a cut is found at 20 lengths, before the first connection", async () => {
    const { size } = await file.stat();
    const whole = (await file.read(Buffer.alloc(size), 0, size, 0)).buffer;
    for (let cut = 0; cut < 20; cut++) {
      const length = cut === 0 ? 0 : cut === 1 ? size - 1 : random.integer(size);
      await file.truncate(length);
      expect(await expectFound(`cut to ${length} of ${size} bytes`)).toBe(0);
      await file.write(whole, length, size - length, length);
    }
  });

  test("what restore does not use may change: padding, unused space, and what follows the image", async () => {
    const { size } = await file.stat();
    const unused: number[] = [];
    let end = 0;
    for (const range of [...ranges].sort((a, b) => a.offset - b.offset)) {
      for (let offset = end; offset < range.offset; offset++) unused.push(offset);
      end = range.offset + range.length;
    }
    expect(unused.length).toBeGreaterThan(0);
    const undo = await Promise.all(Array.from({ length: 50 }, () => flip(random.pick(unused))));
    await file.write(Buffer.alloc(5000, 0xaa), 0, 5000, size);
    try {
      expect(await verify({ image })).toMatchObject({ checked: "checksums and structure" });
      const { failure, seen } = await restored();
      expect(failure).toBeUndefined();
      expect(seen.firstWrong).toBeNull();
      expect(seen.received).toEqual(channels.map(({ bytes }) => bytes.length));
    } finally {
      for (const restoreByte of undo.reverse()) await restoreByte();
      await file.truncate(size);
    }
  });
});
