import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { inspect, type UsedRange, verify } from "../../src/index.ts";
import { type BuildOptions, buildImage, type ChannelContent } from "../support/built-image.ts";
import { exampleImage } from "../support/example-image.ts";

const INIT_BYTES = 64;
const PACKET_BYTES = 1344;

/** The channels of the worked example: main, a channel with one data and one zero packet, an idle channel. */
function exampleChannels(): [ChannelContent, ChannelContent, ChannelContent] {
  const { streams, index } = exampleImage();
  const channels = index.channels.map(
    ({ marks, tail }, number): ChannelContent => ({
      bytes: Buffer.from(streams[number] as Buffer),
      marks: [...marks],
      tail,
    }),
  );
  return channels as [ChannelContent, ChannelContent, ChannelContent];
}

/** The same channel with some bytes of its stream replaced. */
function changed(channel: ChannelContent, change: (bytes: Buffer) => void): ChannelContent {
  const bytes = Buffer.from(channel.bytes);
  change(bytes);
  return { ...channel, bytes };
}

describe("verify holds the streams against the index and the metadata, though every checksum fits", () => {
  let directory: string;
  let image: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "mfd-structure-"));
    image = join(directory, "vm.mfd");
  });
  afterEach(() => rm(directory, { recursive: true }));

  async function expectDamaged(
    channels: readonly ChannelContent[],
    words: RegExp,
    options: BuildOptions = {},
  ): Promise<void> {
    await writeFile(image, buildImage(channels, options));
    await expect(verify({ image })).rejects.toMatchObject({
      code: "IMAGE_DAMAGED",
      message: expect.stringMatching(words),
    });
  }

  test("nothing is wrong with the example itself", async () => {
    await writeFile(image, buildImage(exampleChannels()));
    expect(await verify({ image })).toMatchObject({ checked: "checksums and structure" });
  });

  test("two channels in each other's place", async () => {
    const [main, first, second] = exampleChannels();
    await expectDamaged([main, { ...second }, { ...first }], /carries another channel's stream/);
  });

  test("a channel of another kind", async () => {
    const [main, first, second] = exampleChannels();
    const marks = main.marks.slice(0, 2);
    await expectDamaged(
      [main, first, { ...second, bytes: main.bytes, marks }],
      /channel 1 .*another channel's/,
    );
  });

  test("a SYNC that is none any more", async () => {
    const [main, first, second] = exampleChannels();
    const last = first.bytes.length - PACKET_BYTES;
    const without = changed(first, (bytes) => bytes.writeUInt32BE(0, last + 8));
    await expectDamaged([main, without, second], /channel 0 .*SYNC/);
  });

  test("a SYNC elsewhere than the index says", async () => {
    const [main, first, second] = exampleChannels();
    const marks = first.marks.map((mark, number) => (number === 0 ? mark + PACKET_BYTES : mark));
    await expectDamaged([main, { ...first, marks }, second], /channel 0 .*SYNC/);
  });

  test("a packet of another guest's program: no multifd magic", async () => {
    const [main, first, second] = exampleChannels();
    const spoilt = changed(first, (bytes) => bytes.writeUInt32BE(0xdeadbeef, INIT_BYTES + PACKET_BYTES));
    await expectDamaged([main, spoilt, second], /channel 0: /);
  });

  test("main that ends before its end", async () => {
    const [main, first, second] = exampleChannels();
    const short = { ...main, bytes: main.bytes.subarray(0, main.bytes.length - 10) };
    await expectDamaged([short, first, second], /incomplete/);
  });

  test("a channel that ends within a packet", async () => {
    const [main, first, second] = exampleChannels();
    const bytes = Buffer.concat([first.bytes, first.bytes.subarray(-PACKET_BYTES, -1)]);
    await expectDamaged([main, { ...first, bytes }, second], /incomplete|channel 0/);
  });

  test("another machine type in the metadata", () =>
    expectDamaged(exampleChannels(), /machine/, { metadata: { machine: "pc-q35-7.2" } }));

  test("another UUID in the metadata, which the destination would be set up with", () =>
    expectDamaged(exampleChannels(), / uuid ffffffff/, {
      metadata: { vmUuid: "ffffffff-0000-4000-8000-000000000000" },
    }));

  test("another compression in the metadata", () =>
    expectDamaged(exampleChannels(), /multifdCompression zstd/, { metadata: { compression: "zstd" } }));

  test("a tail that would let device state go out before the RAM", async () => {
    const [main, first, second] = exampleChannels();
    await expectDamaged([{ ...main, tail: main.bytes.length }, first, second], /main channel .*tail/);
  });

  describe("an image without checksums", () => {
    async function withFlip(
      offsetIn: (ranges: readonly UsedRange[]) => number,
    ): Promise<ReturnType<typeof verify>> {
      const bytes = buildImage(exampleChannels(), { checksums: false });
      await writeFile(image, bytes);
      const { ranges } = await inspect({ image });
      const offset = offsetIn(ranges);
      bytes.writeUInt8(bytes.readUInt8(offset) ^ 0x10, offset);
      await writeFile(image, bytes);
      return verify({ image });
    }
    const start = (ranges: readonly UsedRange[], name: string): number =>
      ranges.find(({ what }) => what === name)?.offset ?? Number.NaN;

    test("says that only the structure was checked, and cannot see changed RAM", async () => {
      const inPage = INIT_BYTES + 2 * PACKET_BYTES + 100;
      const report = await withFlip((ranges) => start(ranges, "channel 0") + inPage);
      expect(report.checked).toBe("structure only");
    });

    test.each([
      ["a packet's magic", "channel 0", INIT_BYTES + 1],
      ["a channel's id", "channel 1", 24],
      ["main's magic", "main", 0],
      ["the index", "index", 30],
      ["the metadata", "metadata", 30],
    ])("still finds a change in %s", async (_name, range, within) => {
      await expect(withFlip((ranges) => start(ranges, range) + within)).rejects.toMatchObject({
        code: "IMAGE_DAMAGED",
      });
    });
  });
});
