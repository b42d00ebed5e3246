import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { expect, test } from "vitest";
import type { Superblock } from "../../../src/formats/image/model.ts";
import {
  decodeSuperblock,
  encodeSuperblock,
  writingSuperblock,
} from "../../../src/formats/image/superblock.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";

const sealed: Superblock = {
  state: "sealed",
  uuid: UUID,
  createdMs: 1_767_225_600_000,
  imageBytes: Number.MAX_SAFE_INTEGER - 4095,
  metadata: { offset: 0x1_0000_0000_000, length: 417, crc32: 0xffff_ffff },
  index: { offset: 8192, length: 304, crc32: 0 },
};

function patched(write: (bytes: Buffer) => void): Buffer {
  const bytes = encodeSuperblock(sealed);
  write(bytes);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 4092)), 4092);
  return bytes;
}

function failing(code: string, ...words: string[]): unknown {
  return expect.objectContaining({ code, message: expect.stringMatching(words.join(".*")) });
}

test("a sealed superblock comes back as it was", () => {
  const bytes = encodeSuperblock(sealed);
  expect(bytes.length).toBe(4096);
  expect(decodeSuperblock(bytes)).toEqual(sealed);
});

test("an unfinished image is read as such, not refused", () => {
  const writing = writingSuperblock(UUID, 12);
  expect(decodeSuperblock(encodeSuperblock(writing))).toEqual(writing);
  expect(writing).toMatchObject({ state: "writing", imageBytes: 0, metadata: null, index: null });
});

test("every single flipped bit is found", () => {
  const bytes = encodeSuperblock(sealed);
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    const at = bit >> 3;
    const mask = 1 << (bit & 7);
    bytes[at] = (bytes[at] as number) ^ mask;
    expect(() => decodeSuperblock(bytes), `bit ${bit}`).toThrow(
      failing(at < 8 ? "NOT_AN_IMAGE" : "IMAGE_DAMAGED"),
    );
    bytes[at] = (bytes[at] as number) ^ mask;
  }
});

test("other files are no image, and the error shows how they start", () => {
  const stream = Buffer.concat([Buffer.from("QEVM\0\0\0\u0003"), Buffer.alloc(5000)]);
  expect(() => decodeSuperblock(stream)).toThrow(failing("NOT_AN_IMAGE", "5145564d00000003"));
  expect(() => decodeSuperblock(Buffer.alloc(4096))).toThrow(failing("NOT_AN_IMAGE"));
  expect(() => decodeSuperblock(Buffer.alloc(0))).toThrow(failing("NOT_AN_IMAGE", "nothing"));
});

test("a file that ends within its superblock is damaged", () => {
  expect(() => decodeSuperblock(encodeSuperblock(sealed).subarray(0, 4095))).toThrow(
    failing("IMAGE_DAMAGED", "byte 4095"),
  );
});

test("later versions and unknown required features are refused with advice", () => {
  const later = patched((bytes) => bytes.writeUInt32BE(2, 8));
  expect(() => decodeSuperblock(later)).toThrow(
    failing("UNSUPPORTED_VERSION", "version 2", "up to 1", "newer"),
  );
  const features = patched((bytes) => bytes.writeUInt32BE(0x10, 12));
  expect(() => decodeSuperblock(features)).toThrow(failing("UNSUPPORTED_VERSION", "0x00000010", "newer"));
});

test("optional features and bytes behind the known fields are ignored", () => {
  const bytes = patched((block) => {
    block.writeUInt32BE(0xffff_ffff, 16);
    block.fill(0xee, 100, 4092);
  });
  expect(decodeSuperblock(bytes)).toEqual(sealed);
});

test("version 0, states that do not exist, impossible sizes and times are damage", () => {
  expect(() => decodeSuperblock(patched((bytes) => bytes.writeUInt32BE(0, 8)))).toThrow(
    failing("IMAGE_DAMAGED", "byte 8", "version 0"),
  );
  for (const state of [0, 3]) {
    const bytes = patched((block) => block.writeUInt32BE(state, 20));
    expect(() => decodeSuperblock(bytes)).toThrow(failing("IMAGE_DAMAGED", "byte 20", `state ${state}`));
  }
  const huge = patched((bytes) => bytes.writeBigUInt64BE(2n ** 53n, 48));
  expect(() => decodeSuperblock(huge)).toThrow(failing("IMAGE_DAMAGED", "byte 48", "9007199254740992"));
  const never = patched((bytes) => bytes.writeBigUInt64BE(8_640_000_000_000_001n, 40));
  expect(() => decodeSuperblock(never)).toThrow(failing("IMAGE_DAMAGED", "byte 40", "no time"));
});

test("a superblock is never made with something that is no UUID", () => {
  expect(() => encodeSuperblock({ ...sealed, uuid: "no" })).toThrow(failing("INTERNAL", "no UUID"));
});
