import type { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { encodeIndex } from "../../../src/formats/image/index.ts";
import { decodeIndex, IndexDecoder } from "../../../src/formats/image/index-decoder.ts";
import { exampleImage } from "../../support/example-image.ts";
import { indexAsRead } from "../../support/index-as-read.ts";

const { index } = exampleImage();

/** The example's index with something written over it. Main's record starts at 16, channel 0's at 104. */
function patched(write: (bytes: Buffer) => void): Buffer {
  const bytes = encodeIndex(index);
  write(bytes);
  return bytes;
}

function damage(...words: string[]): unknown {
  return expect.objectContaining({ code: "IMAGE_DAMAGED", message: expect.stringMatching(words.join(".*")) });
}

test("an index comes back as it was, from any place in memory", () => {
  const bytes = encodeIndex(index);
  const shifted = new Uint8Array(bytes.length + 3);
  shifted.set(bytes, 3);
  expect(decodeIndex(bytes)).toEqual(indexAsRead(index));
  expect(decodeIndex(shifted.subarray(3), 8192)).toEqual(indexAsRead(index, 8192));
});

test("channels without checksums, extents, marks and tail come back too", () => {
  const bare = {
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
      {
        kind: "multifd",
        id: 0,
        length: 0,
        blockBytes: 4096,
        extents: new Float64Array(0),
        marks: new Float64Array(0),
        tail: null,
        checksums: null,
      },
    ],
  } as const;
  const bytes = encodeIndex(bare);
  expect(bytes.length).toBe(16 + 2 * 48);
  expect(decodeIndex(bytes)).toEqual(indexAsRead(bare));
});

test("an index cut anywhere is refused", () => {
  const bytes = encodeIndex(index);
  for (let length = 0; length < bytes.length; length++) {
    expect(() => decodeIndex(bytes.subarray(0, length)), `${length} bytes`).toThrow(damage("index byte"));
  }
});

test("an index of which too little was read is refused", () => {
  const bytes = encodeIndex(index);
  for (const length of [0, 15, 16, 100, bytes.length - 1]) {
    const decoder = new IndexDecoder({ offset: 4096, length: bytes.length });
    if (length > 0) decoder.push(bytes.subarray(0, length));
    expect(() => decoder.finish()).toThrow(damage(`byte ${length}: no more`));
  }
});

test("bytes behind the last record are refused", () => {
  const bytes = patched((block) => block.writeUInt32BE(2, 12));
  expect(() => decodeIndex(bytes)).toThrow(damage("index byte 216", "88 bytes follow the last record"));
});

test.each<[string, (bytes: Buffer) => void, string]>([
  ["magic", (bytes) => bytes.write("MFDINDEY"), "byte 0: .*MFDINDEX"],
  ["version", (bytes) => bytes.writeUInt32BE(2, 8), "byte 8: index version 2"],
  ["record count", (bytes) => bytes.writeUInt32BE(257, 12), "byte 12: 257 channels"],
  ["kind", (bytes) => bytes.writeUInt32BE(0, 16), "byte 16: channel kind 0"],
  ["checksum kind", (bytes) => bytes.writeUInt32BE(2, 36), "byte 36: checksum kind 2"],
  ["length", (bytes) => bytes.writeUInt32BE(0x20_0000, 24), "byte 24: the value 9007199254741217"],
  ["block size 0", (bytes) => bytes.writeUInt32BE(0, 32), "byte 56: 1 blocks of 0 bytes"],
  [
    "extent count",
    (bytes) => bytes.writeUInt32BE(0xffff_ffff, 48),
    "byte 16: the record needs 68719476792 bytes and 288 are left",
  ],
  ["mark count", (bytes) => bytes.writeUInt32BE(0xffff_ffff, 52), "byte 16: the record needs \\d+ bytes"],
  ["block count", (bytes) => bytes.writeUInt32BE(2, 56), "byte 56: 2 blocks of 4096 bytes do not make 225"],
  ["extent offset", (bytes) => bytes.writeUInt32BE(0x20_0000, 64), "byte 64: the value"],
])("a forged %s is refused where it lies", (_what, write, message) => {
  expect(() => decodeIndex(patched(write))).toThrow(damage(message));
});

test.each([
  ["extents", 48, 2 ** 18, 16],
  ["marks", 52, 2 ** 22, 8],
])("more %s than any image may have are refused before they are read", (what, field, limit, size) => {
  const head = patched((bytes) => {
    bytes.writeUInt32BE(0, 48);
    bytes.writeUInt32BE(0, 52);
    bytes.writeUInt32BE(limit + 1, field);
  }).subarray(0, 64);
  const decoder = new IndexDecoder({ offset: 4096, length: 64 + size * (limit + 1) + 8 });
  const message = `byte ${field}: there are ${limit + 1} ${what}`;
  expect(() => decoder.push(head)).toThrow(damage(message));
  expect(() => decoder.finish()).toThrow(damage(message));
});
