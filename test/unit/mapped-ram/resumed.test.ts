import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { expect, test } from "vitest";
import {
  decodeMark,
  encodeMark,
  isMark,
  MARK_BYTES,
  type MarkedImage,
  markOffset,
  openMark,
  type ResumedMark,
} from "../../../src/formats/mapped-ram/resumed.ts";
import { exampleMapped } from "../../support/example-mapped.ts";

const image: MarkedImage = { uuid: "c0ffee00-0000-4000-8000-000000000001", streamEnd: 1_130_668 };
const mark: ResumedMark = {
  ...{ resumedMs: 1_700_000_000_000, completedMs: null, session: "5e551011-0000-4000-8000-000000000003" },
  qemu: { pid: 4_194_303, startTicks: 2 ** 40, bootId: "b0071d00-0000-4000-8000-000000000004" },
};
const damaged = (text: string): object =>
  expect.objectContaining({ code: "IMAGE_DAMAGED", message: expect.stringContaining(text) });

function changed(at: number, value: number, fix = false): Buffer {
  const bytes = encodeMark(mark, image);
  bytes.writeUInt32BE(value, at);
  if (fix) bytes.writeUInt32BE(crc32(bytes.subarray(0, 4092)), 4092);
  return bytes;
}

test("the place of the mark in a sealed image is reserved, zeros, and none", () => {
  const { bytes, trailer } = exampleMapped();
  const { seal, uuid } = trailer.footer;
  const at = markOffset(seal);
  expect(at).toBe(bytes.length - 2 * 4096);
  const page = bytes.subarray(at, at + MARK_BYTES);
  expect(decodeMark(page, { uuid, streamEnd: seal.streamEnd })).toBeNull();
  expect(trailer.pieces.at(-1)).toEqual({ offset: at, bytes: new Uint8Array(MARK_BYTES) });
});

test("a mark that is no whole one of this image is an error, never none", () => {
  const bytes = encodeMark(mark, image);
  expect(isMark(bytes)).toBe(true);
  for (const [what, page, text] of [
    ["torn", Buffer.concat([bytes.subarray(0, 512), Buffer.alloc(3584)]), "checksum"],
    ["its end only", Buffer.concat([Buffer.alloc(512), bytes.subarray(512)]), "does not begin with"],
    ["a foreign page", Buffer.alloc(4096, 0xaa), "does not begin with"],
    ["state 3", changed(20, 3, true), "state 3"],
    ["a time that no file can say", changed(40, 0xffff_ffff, true), "larger than any"],
    ["a time that has no name", changed(40, 0x1f_ffff, true), "are no time"],
  ] as const) {
    expect(() => decodeMark(page, image), what).toThrow(damaged(text));
  }
  for (const other of [
    { ...image, uuid: null },
    { ...image, streamEnd: image.streamEnd - 1 },
    { ...image, uuid: "c0ffee00-0000-4000-8000-000000000002" },
  ]) {
    expect(() => decodeMark(bytes, other)).toThrow(damaged("that of another image"));
  }
  for (const at of [8, 12]) {
    expect(() => openMark(changed(at, 7, true))).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED_VERSION" }),
    );
  }
});

test("without a seal the mark says where the file ended", () => {
  const unsealed = { uuid: null, streamEnd: 77 };
  expect(openMark(encodeMark({ ...mark, qemu: null }, unsealed))).toEqual({
    mark: { ...mark, qemu: null },
    image: unsealed,
  });
});
