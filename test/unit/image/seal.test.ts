import type { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import type { WrittenIndex } from "../../../src/formats/image/model.ts";
import { type OpenedImage, openImage } from "../../../src/formats/image/open.ts";
import { sealedRegions } from "../../../src/formats/image/regions.ts";
import { buildSeal } from "../../../src/formats/image/seal.ts";
import { decodeSuperblock } from "../../../src/formats/image/superblock.ts";
import { exampleImage, exampleMetadata } from "../../support/example-image.ts";
import { indexAsRead } from "../../support/index-as-read.ts";

const example = exampleImage();
const identity = { uuid: "c0ffee00-0000-4000-8000-000000000001", createdMs: 1 };

/** Opens a whole image as a reader of files would. */
function open(bytes: Buffer): OpenedImage {
  const superblock = decodeSuperblock(bytes.subarray(0, 4096));
  const { metadata, index } = sealedRegions(superblock, bytes.length);
  const read = (region: { offset: number; length: number }): Buffer =>
    bytes.subarray(region.offset, region.offset + region.length);
  return openImage(superblock, { metadata: read(metadata), index: read(index) }, bytes.length);
}

test("a sealed image opens with what went in", () => {
  const { metadata, index } = open(example.bytes);
  expect(metadata).toEqual(example.metadata);
  expect(index).toEqual(indexAsRead(example.index, 0x7000));
});

test("the seal lies behind the data and fills whole blocks", () => {
  const seal = buildSeal(identity, example.metadata, example.index);
  expect(seal.offset).toBe(0x6000);
  expect(seal.closing.length).toBe(0x2000);
  expect(seal.superblock).toMatchObject({ state: "sealed", imageBytes: 0x8000, createdMs: 1 });
});

test("every flipped byte of metadata and index is found, and the error says where", () => {
  for (const [what, start, length] of [
    ["metadata", 0x6000, 440],
    ["index", 0x7000, 304],
  ] as const) {
    for (let at = start; at < start + length; at++) {
      const bytes = example.bytes;
      bytes[at] = (bytes[at] as number) ^ 0x20;
      expect(() => open(bytes)).toThrow(
        expect.objectContaining({
          code: "IMAGE_DAMAGED",
          message: expect.stringContaining(`${what} at byte ${start}`),
        }),
      );
      bytes[at] = (bytes[at] as number) ^ 0x20;
    }
  }
});

test("a region of which too little could be read is damage", () => {
  const superblock = decodeSuperblock(example.bytes);
  const short = {
    metadata: example.bytes.subarray(0x6000, 0x6001),
    index: example.bytes.subarray(0x7000, 0x7130),
  };
  expect(() => openImage(superblock, short, example.bytes.length)).toThrow(/440 bytes and 1 could be read/);
});

test("regions of absurd size are refused before anyone reads them", () => {
  const superblock = decodeSuperblock(example.bytes);
  const imageBytes = 2 ** 40;
  const huge = { offset: 4096, length: 2 ** 30 + 1, crc32: 0 };
  expect(() => sealedRegions({ ...superblock, imageBytes, index: huge }, imageBytes)).toThrow(
    /index .* limit/,
  );
  expect(() => sealedRegions({ ...superblock, imageBytes, metadata: huge }, imageBytes)).toThrow(
    /metadata .* limit/,
  );
});

test("what no reader would accept is not sealed", () => {
  const [main, ...rest] = example.index.channels;
  const broken: WrittenIndex = {
    channels: [{ ...main, length: 1 } as WrittenIndex["channels"][number], ...rest],
  };
  expect(() => buildSeal(identity, exampleMetadata(), broken)).toThrow(
    expect.objectContaining({ code: "INTERNAL", message: expect.stringContaining("main") }),
  );
  expect(() => buildSeal(identity, { ...exampleMetadata(), multifdChannels: 1 }, example.index)).toThrow(
    expect.objectContaining({ code: "INTERNAL", message: expect.stringContaining("multifdChannels") }),
  );
});

test("an image of one empty connection can be sealed", () => {
  const index: WrittenIndex = {
    channels: [
      {
        kind: "main",
        id: 0,
        length: 0,
        blockBytes: 4096,
        extents: new Float64Array(0),
        marks: new Float64Array(0),
        tail: null,
        checksums: null,
      },
    ],
  };
  const seal = buildSeal(identity, { ...exampleMetadata(), multifdChannels: 0 }, index);
  expect(seal.offset).toBe(4096);
});
