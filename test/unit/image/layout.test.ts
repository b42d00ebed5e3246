import { expect, test } from "vitest";
import { packExtents } from "../../../src/formats/image/extents.ts";
import { checkAgreement, checkLayout, usedRanges } from "../../../src/formats/image/layout.ts";
import type { ChannelRecord, ImageIndex, Superblock } from "../../../src/formats/image/model.ts";
import { decodeSuperblock, writingSuperblock } from "../../../src/formats/image/superblock.ts";
import { exampleImage, exampleMetadata } from "../../support/example-image.ts";
import { indexAsRead } from "../../support/index-as-read.ts";

const { bytes, index: written } = exampleImage();
const index = indexAsRead(written, 0x7000);
const superblock = decodeSuperblock(bytes);

/** The example's index with one record changed: 0 is main, 1 channel 0, 2 channel 1. */
function changed(number: number, change: Partial<ChannelRecord>): ImageIndex {
  return { channels: index.channels.map((record, n) => (n === number ? { ...record, ...change } : record)) };
}

/** A superblock and an index, one of them changed. */
type Layout = readonly [Superblock, ImageIndex];

function withRecord(number: number, change: Partial<ChannelRecord>): Layout {
  return [superblock, changed(number, change)];
}

function withSuperblock(change: Partial<Superblock>): Layout {
  return [{ ...superblock, ...change }, index];
}

function withExtents(...extents: readonly (readonly [number, number])[]): Layout {
  return withRecord(1, { extents: packExtents(extents.map(([offset, length]) => ({ offset, length }))) });
}

function withMarks(number: number, ...marks: readonly number[]): ImageIndex {
  return changed(number, { marks: Float64Array.from(marks) });
}

const crc32 = 1;

test("the example keeps every rule, also with more file behind it", () => {
  expect(() => checkLayout(superblock, index, bytes.length)).not.toThrow();
  expect(() => checkLayout(superblock, index, bytes.length + 4096)).not.toThrow();
});

test.each<[string, Layout, RegExp]>([
  ["an unaligned size", withSuperblock({ imageBytes: 0x7fff }), /size 32767 is no multiple/],
  [
    "metadata in the superblock",
    withSuperblock({ metadata: { offset: 0, length: 9, crc32 } }),
    /metadata at byte 0: it lies in the superblock/,
  ],
  [
    "unaligned metadata",
    withSuperblock({ metadata: { offset: 0x6001, length: 9, crc32 } }),
    /metadata at byte 24577: it does not start/,
  ],
  [
    "empty metadata",
    withSuperblock({ metadata: { offset: 0x6000, length: 0, crc32 } }),
    /metadata at byte 24576: it is empty/,
  ],
  [
    "an index behind the end",
    withSuperblock({ index: { offset: 0x8000, length: 1, crc32 } }),
    /index at byte 32768: its 1 bytes reach beyond/,
  ],
  [
    "an index out of all bounds",
    withSuperblock({ index: { offset: 2 ** 53 - 4096, length: 2 ** 53 - 1, crc32 } }),
    /reach beyond/,
  ],
  [
    "metadata over the index",
    withSuperblock({ metadata: { offset: 0x6000, length: 4097, crc32 } }),
    /index at byte 28672: it overlaps metadata/,
  ],
  ["no channels", [superblock, { channels: [] }], /first record is not main/],
  ["no main", [superblock, { channels: index.channels.slice(1) }], /first record is not main/],
  ["main with an id", withRecord(0, { id: 1 }), /first record is not main/],
  ["main twice", withRecord(1, { kind: "main" }), /record 1 is main where channel 0 must be/],
  ["a doubled id", withRecord(2, { id: 0 }), /record 2 is channel 0 where channel 1 must be/],
  ["a hole in the ids", withRecord(2, { id: 2 }), /record 2 is channel 2 where channel 1 must be/],
  ["block size 0", withRecord(1, { blockBytes: 0 }), /channel 0: its block size 0/],
  ["an odd block size", withRecord(1, { blockBytes: 5000 }), /channel 0: its block size 5000/],
  ["a huge block size", withRecord(1, { blockBytes: 2 ** 20 + 4096 }), /channel 0: its block size 1052672/],
  [
    "an unaligned extent",
    withExtents([0x1001, 8192], [0x5000, 1344]),
    /channel 0 at byte 4097: it does not start/,
  ],
  [
    "an extent in the superblock",
    withExtents([0, 8192], [0x5000, 1344]),
    /channel 0 at byte 0: it lies in the superblock/,
  ],
  [
    "an empty extent",
    withExtents([0x1000, 8192], [0x4000, 0], [0x5000, 1344]),
    /channel 0 at byte 16384: it is empty/,
  ],
  [
    "an extent behind the end",
    withExtents([0x1000, 8192], [0x8000, 1344]),
    /channel 0 at byte 32768: .* reach beyond/,
  ],
  [
    "an extent cutting a block",
    withExtents([0x1000, 1344], [0x5000, 8192]),
    /channel 0 at byte 4096: .* cuts a block/,
  ],
  [
    "extents too short",
    withExtents([0x1000, 8192], [0x5000, 1343]),
    /channel 0: its extents hold 9535 bytes, but it has 9536/,
  ],
  [
    "extents too long",
    withRecord(1, { length: 9535 }),
    /channel 0: its extents hold 9536 bytes, but it has 9535/,
  ],
  [
    "extents of another's",
    withExtents([0x1000, 8192], [0x4000, 1344]),
    /channel [01] at byte 16384: it overlaps channel [01]/,
  ],
  [
    "an extent over metadata",
    withExtents([0x5000, 8192], [0x1000, 1344]),
    /metadata at byte 24576: it overlaps channel 0/,
  ],
  ["an extent on another's padding", withExtents([0x1000, 8192], [0x3000, 1344]), /overlaps/],
  ["marks that stand still", [superblock, withMarks(1, 5, 5)], /channel 0: its mark 5 does not ascend/],
  ["marks that descend", [superblock, withMarks(1, 6, 5)], /channel 0: its mark 5 does not ascend from 6/],
  ["a mark behind the end", [superblock, withMarks(1, 9537)], /channel 0: its mark 9537 lies beyond/],
  ["a tail on a multifd channel", withRecord(1, { tail: 9536 }), /channel 0: it has a tail/],
  ["a tail behind the end", withRecord(0, { tail: 226 }), /main: its tail 226/],
  ["a tail before the last mark", withRecord(0, { tail: 0x56 }), /main: its tail 86/],
])("%s is damage", (_what, [block, records], message) => {
  expect(() => checkLayout(block, records, bytes.length)).toThrow(
    expect.objectContaining({ code: "IMAGE_DAMAGED", message: expect.stringMatching(message) }),
  );
});

test("blocks that a reader could not hold all at once are damage", () => {
  const [main, channel] = index.channels;
  const big = { length: 0, blockBytes: 2 ** 20, extents: new Float64Array(0), marks: new Float64Array(0) };
  const many = (count: number): ImageIndex => ({
    channels: [
      { ...main, ...big, tail: null } as ChannelRecord,
      ...Array.from({ length: count }, (_, id) => ({ ...channel, ...big, id }) as ChannelRecord),
    ],
  });
  expect(() => checkLayout(superblock, many(63), bytes.length)).not.toThrow();
  expect(() => checkLayout(superblock, many(64), bytes.length)).toThrow(
    /its 65 channels add up to 68157440 bytes, more than 67108864/,
  );
});

test("a file cut short is damage, and an unfinished one says so", () => {
  expect(() => checkLayout(superblock, index, bytes.length - 1)).toThrow(
    expect.objectContaining({ code: "IMAGE_DAMAGED", message: expect.stringContaining("cut short") }),
  );
  expect(() => checkLayout(writingSuperblock(superblock.uuid, 0), index, bytes.length)).toThrow(
    expect.objectContaining({ code: "NOT_SEALED" }),
  );
});

test("metadata and index must name the same number of channels", () => {
  expect(() => checkAgreement(exampleMetadata(), index)).not.toThrow();
  expect(() => checkAgreement({ ...exampleMetadata(), multifdChannels: 3 }, index)).toThrow(
    /multifdChannels: it is 3, but the index has 2/,
  );
});

test("every channel needs a SYNC for each barrier, unless main's are unknown", () => {
  expect(() => checkAgreement(exampleMetadata(), withMarks(2, 1408))).toThrow(
    /channel 1: it has 1 SYNCs, but main has 2 barriers/,
  );
  expect(() => checkAgreement(exampleMetadata(), withMarks(0))).not.toThrow();
});

test("the ranges in use are told in the order of the file, without padding", () => {
  expect(usedRanges(superblock, index)).toEqual([
    { what: "superblock", offset: 0, length: 4096 },
    { what: "channel 0", offset: 0x1000, length: 8192 },
    { what: "main", offset: 0x3000, length: 225 },
    { what: "channel 1", offset: 0x4000, length: 2752 },
    { what: "channel 0", offset: 0x5000, length: 1344 },
    { what: "metadata", offset: 0x6000, length: 440 },
    { what: "index", offset: 0x7000, length: 304 },
  ]);
});

test("of very many ranges neighbours are told together, and none is left out", () => {
  const count = 100_000;
  const extents = Float64Array.from({ length: 2 * count }, (_, i) =>
    i % 2 === 0 ? 0x10000 + i * 4096 : 4096,
  );
  const ranges = usedRanges(superblock, changed(1, { extents }), 0x1000);
  expect(ranges.length).toBeLessThanOrEqual(65536);
  expect(ranges[0]).toEqual({ what: "neighbours", offset: 0x1000, length: 0x3000 + 225 });
  const { offset, length } = ranges.at(-1) ?? { offset: 0, length: 0 };
  expect(offset + length).toBe(0x1000 + 0x10000 + 2 * (count - 1) * 4096 + 4096);
});
