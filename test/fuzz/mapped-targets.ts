import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { reportMark } from "../../src/control/instant/ran-on.ts";
import { decodeFooter, sealOf } from "../../src/formats/mapped-ram/footer.ts";
import { checkPlaces, decodeMap, encodeMap } from "../../src/formats/mapped-ram/map.ts";
import { type MappedBlock, type MappedStream, streamSpans } from "../../src/formats/mapped-ram/model.ts";
import { encodeMark, openMark } from "../../src/formats/mapped-ram/resumed.ts";
import { MappedStreamWalker } from "../../src/formats/mapped-ram/stream.ts";
import { checkSeal } from "../../src/formats/mapped-ram/trailer.ts";
import { outcomeOf, type Target } from "./outcome.ts";

const FILE_BYTES = 2 ** 21;

/** However it is read, a file comes to the same, and everything in it lies within it. */
const mapped: Target = (input, random) => {
  const whole = outcomeOf(() => walk(input, () => input.length));
  const most = random.pick([1, 7, 64, 4096]);
  const pieces = outcomeOf(() => walk(input, () => 1 + random.integer(most)));
  assert.deepEqual(pieces, whole, "read in pieces the file is another one");
  if (!("value" in whole)) return false;
  expectInside(whole.value, input.length);
  return true;
};

function walk(file: Buffer, piece: () => number): MappedStream {
  const walker = new MappedStreamWalker(0);
  while (walker.wanted < file.length) walker.push(file.subarray(walker.wanted, walker.wanted + piece()));
  return walker.finish();
}

const map: Target = (input) => {
  const decoded = outcomeOf(() => decodeMap(input));
  if (!("value" in decoded)) return false;
  const table = decoded.value;
  assert.deepEqual(decodeMap(encodeMap(table)), table);
  const placed = outcomeOf(() => checkPlaces(table, 0, FILE_BYTES));
  const blocks = table.blocks.map((block): MappedBlock => ({ ...block, name: "" }));
  if ("value" in placed) expectInside({ base: 0, end: FILE_BYTES, blocks }, FILE_BYTES);
  return true;
};

/** With a checksum that fits, as the checksum alone would refuse every change. */
const footer: Target = (input) => {
  if (input.length >= 4096) input.writeUInt32BE(crc32(input.subarray(0, 4092)), 4092);
  const opened = outcomeOf(() => {
    const seal = sealOf(decodeFooter(input));
    checkSeal(seal, 0, seal.imageEnd);
    return seal;
  });
  if (!("value" in opened)) return false;
  const { map: places, metadata, sums, imageEnd } = opened.value;
  for (const { offset, length } of [places, metadata, sums]) assert.ok(offset + length <= imageEnd - 8192);
  return true;
};

/** Likewise. */
const mark: Target = (input) => {
  if (input.length >= 4096) input.writeUInt32BE(crc32(input.subarray(0, 4092)), 4092);
  const opened = outcomeOf(() => openMark(input));
  if (!("value" in opened)) return false;
  const { mark: found, image } = opened.value;
  assert.ok(Number.isFinite(Date.parse(reportMark(found)?.at ?? "")), "it was resumed at no time");
  assert.deepEqual(openMark(encodeMark(found, image)), opened.value);
  return true;
};

function expectInside(stream: Pick<MappedStream, "base" | "end" | "blocks">, bytes: number): void {
  let end = 0;
  for (const { offset, length } of streamSpans(stream)) {
    assert.ok(offset >= end && length >= 0 && offset + length <= bytes, "a span lies where it cannot");
    end = offset + length;
  }
}

export const MAPPED_TARGETS: Readonly<Record<"mapped" | "map" | "footer" | "mark", Target>> = {
  ...{ mapped, map, footer, mark },
};
