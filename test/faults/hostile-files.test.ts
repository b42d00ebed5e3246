import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { open, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { encodeMetadata } from "../../src/formats/image/metadata.ts";
import { restore } from "../../src/index.ts";
import { exampleMetadata } from "../support/example-image.ts";
import { forge, forgedIndex } from "../support/forged-image.ts";
import { seededRandom } from "../support/random.ts";
import { type Refusal, useRefusals } from "../support/refusals.ts";

const MIB = 2 ** 20;
const TIB = 2 ** 40;

const { scratch, destination, connections, expectRefused } = useRefusals();

function text(head: string, length: number): Buffer {
  return Buffer.concat([Buffer.from(head, "latin1"), Buffer.alloc(length - head.length)]);
}

function noise(bytes: number): Buffer {
  const random = seededRandom();
  return Buffer.from(Array.from({ length: bytes }, () => random.integer(256)));
}

describe("files of others", () => {
  test.each<[string, () => Buffer | undefined, Refusal]>([
    ["a program", () => readFileSync("/bin/sh"), { code: "NOT_AN_IMAGE" }],
    ["qcow2", () => text("QFI\xfb\0\0\0\x03", 256 * 1024), { code: "NOT_AN_IMAGE" }],
    ["zeros", () => Buffer.alloc(MIB), { code: "NOT_AN_IMAGE" }],
    ["noise", () => noise(MIB), { code: "NOT_AN_IMAGE" }],
    ["nothing", () => Buffer.alloc(0), { code: "NOT_AN_IMAGE" }],
    ["less than a superblock", () => text("MFDIMAGE", 4095), { code: "NOT_AN_IMAGE" }],
    [
      "our magic and noise",
      () => Buffer.concat([text("MFDIMAGE", 8), noise(MIB)]),
      { code: "IMAGE_DAMAGED" },
    ],
  ])("%s", async (_, content, refusal) => {
    const file = scratch.file("vm.mfd");
    await writeFile(file, content() ?? "");
    await expectRefused(file, refusal);
  });

  test.each(["/dev/zero", "/dev/full", "/tmp"])("%s is no file at all", (path) =>
    expectRefused(path, { code: "TARGET_REFUSED", status: 5 }),
  );

  test("a TiB of nothing", async () => {
    const handle = await open(scratch.file("vm.mfd"), "w");
    await handle.truncate(TIB);
    await handle.close();
    await expectRefused(scratch.file("vm.mfd"), { code: "NOT_AN_IMAGE" });
  });
});

describe("images that point where they must not, with every checksum right", () => {
  const page = (offset: number, length = 4096) => Float64Array.of(offset, length);
  // Metadata lie at 0x4000 and the index behind them.
  test.each<[string, Parameters<typeof forgedIndex>, RegExp]>([
    ["an extent on the superblock", [{ length: 4096, extents: page(0) }], /in the superblock/],
    ["an extent on the metadata", [{ length: 4096, extents: page(0x4000) }], /overlaps/],
    ["an extent on the index", [{ length: 4096, extents: page(0x5000) }], /overlaps/],
    ["an extent around everything", [{ length: 0x5000, extents: page(4096, 0x5000) }], /overlaps/],
    [
      "one extent twice",
      [{ length: 8192, extents: Float64Array.of(4096, 4096, 4096, 4096) }],
      /overlaps main/,
    ],
    [
      "two channels in one place",
      [{ length: 4096, extents: page(4096) }, [{ length: 4096, extents: page(4096) }]],
      /overlaps/,
    ],
    [
      "an extent of a PiB",
      [{ length: 2 ** 50, blockBytes: 2 ** 20, extents: page(4096, 2 ** 50) }],
      /reach beyond/,
    ],
    [
      "an extent at the end of all numbers",
      [{ length: 4096, extents: page(2 ** 53 - 4096) }],
      /reach beyond/,
    ],
  ])("%s", async (_, index, words) => {
    const file = scratch.file("vm.mfd");
    await forge(file, { at: 0x4000, index: { bytes: forgedIndex(...index) } });
    await expectRefused(file, { code: "IMAGE_DAMAGED", words });
  });

  test.each<[string, number, RegExp]>([
    ["the superblock", 0, /index .*superblock/],
    ["the metadata", 0x4000, /index byte 0|overlaps/],
    ["another place within itself", 0x5008, /multiple of 4096/],
  ])("an index that is %s", async (_, offset, words) => {
    const file = scratch.file("vm.mfd");
    await forge(file, { at: 0x4000, index: { bytes: forgedIndex({}), offset } });
    await expectRefused(file, { code: "IMAGE_DAMAGED", words });
  });
});

describe("images that are strange but break no rule are delivered, and nothing waits for ever", () => {
  const page = (offset: number) => Float64Array.of(offset, 4096);
  const gated = { length: 4096, marks: Float64Array.of(0, 4096) };
  test.each<[string, Parameters<typeof forgedIndex>]>([
    ["main of no bytes", [{}]],
    ["channels of no bytes", [{}, [{}, {}]]],
    ["main of no bytes beside a channel", [{}, [{ length: 4096, extents: page(4096) }]]],
    [
      "barriers at the first and behind the last byte",
      [{ ...gated, extents: page(4096), tail: 4096 }, [{ ...gated, extents: page(8192) }]],
    ],
  ])("%s", async (_, [main, channels = []]) => {
    const file = scratch.file("vm.mfd");
    const metadata = encodeMetadata({ ...exampleMetadata(), multifdChannels: channels.length });
    await forge(file, {
      at: 12288,
      metadata: { bytes: metadata },
      index: { bytes: forgedIndex(main, channels) },
    });
    await restore({ image: file, connect: destination(), workers: 1 });
    expect(connections()).toBe(channels.length + 1);
  });
});
