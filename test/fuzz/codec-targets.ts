import assert from "node:assert/strict";
import type { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { blockCount } from "../../src/formats/image/blocks.ts";
import { decodeIndex, IndexDecoder } from "../../src/formats/image/index-decoder.ts";
import { checkLayout, usedRanges } from "../../src/formats/image/layout.ts";
import { decodeMetadata, encodeMetadata } from "../../src/formats/image/metadata.ts";
import type { Superblock } from "../../src/formats/image/model.ts";
import { sealedRegions } from "../../src/formats/image/regions.ts";
import { decodeSuperblock } from "../../src/formats/image/superblock.ts";
import { decodeLibvirtData, encodeLibvirtStart } from "../../src/formats/libvirt/data-area.ts";
import { domainUuid } from "../../src/formats/libvirt/domain-xml.ts";
import { decodeLibvirtHeader, HEADER_BYTES } from "../../src/formats/libvirt/header.ts";
import { ChannelWalker } from "../../src/formats/migration/channel-walker.ts";
import { judgeCompleteness } from "../../src/formats/migration/completeness.ts";
import { DescriptionReader } from "../../src/formats/migration/description-reader.ts";
import type { ChannelSummary, MainSummary, MultifdSummary } from "../../src/formats/migration/summary.ts";
import { DescriptionScanner } from "../../src/formats/migration/vmdescription.ts";
import { answers } from "./answers-target.ts";
import type { Kind } from "./corpus.ts";
import { MAPPED_TARGETS } from "./mapped-targets.ts";
import { cut } from "./mutate.ts";
import { outcomeOf, type Target } from "./outcome.ts";

/** However it is cut, a stream comes to the same; a stream that was walked is judged beside the others of its kind. */
const stream: Target = (input, random, originals) => {
  const whole = outcomeOf(() => walk([input]));
  const pieces = outcomeOf(() => walk(cut(random, input)));
  assert.deepEqual(pieces, whole, "cut into pieces the stream is another one");
  if (!("value" in whole)) return false;
  assert.equal(whole.value.bytes, input.length);
  const summaries = [whole.value, ...walkedOnce(originals)];
  const main = summaries.find((summary): summary is MainSummary => summary.kind === "main") ?? null;
  const channels = summaries.filter((summary): summary is MultifdSummary => summary.kind === "multifd");
  judgeCompleteness(main, channels);
  return true;
};

const walked = new WeakMap<readonly Buffer[], readonly ChannelSummary[]>();

/** The summaries of the originals that are no refused ones themselves. */
function walkedOnce(originals: readonly Buffer[]): readonly ChannelSummary[] {
  const known = walked.get(originals);
  if (known !== undefined) return known;
  const outcomes = originals.map((original) => outcomeOf(() => walk([original])));
  const summaries = outcomes.flatMap((outcome) => ("value" in outcome ? [outcome.value] : []));
  walked.set(originals, summaries);
  return summaries;
}

function walk(pieces: Iterable<Buffer>): ChannelSummary {
  const walker = new ChannelWalker();
  for (const piece of pieces) walker.push(piece);
  return walker.finish();
}

// Where the image of docs/formats/image.md has them, whose index is the corpus's.
const INDEX_AT = 0x7000;
const LAID_OUT: Superblock = {
  ...{ state: "sealed", uuid: "", createdMs: 0, imageBytes: 0x10000, index: null },
  metadata: { offset: 0x6000, length: 440, crc32: 0 },
};

const index: Target = (input, random) => {
  const whole = outcomeOf(() => decodeIndex(input, INDEX_AT));
  const pieces = outcomeOf(() => {
    const decoder = new IndexDecoder({ offset: INDEX_AT, length: input.length });
    decoder.push(input.subarray(0, 0));
    for (const piece of cut(random, input)) decoder.push(piece);
    return decoder.finish();
  });
  assert.deepEqual(pieces, whole, "cut into pieces the index is another one");
  if (!("value" in whole)) return false;
  const block: Superblock = { ...LAID_OUT, index: { offset: INDEX_AT, length: input.length, crc32: 0 } };
  const laid = outcomeOf(() => checkLayout(block, whole.value, LAID_OUT.imageBytes));
  if (!("value" in laid)) return false;
  for (const { offset, length } of usedRanges(block, whole.value)) {
    assert.ok(offset >= 0 && offset + length <= LAID_OUT.imageBytes, "a range lies outside of the image");
  }
  for (const record of whole.value.channels) assert.ok(Number.isSafeInteger(blockCount(record)));
  return true;
};

const metadata: Target = (input) => {
  const decoded = outcomeOf(() => decodeMetadata(input));
  if (!("value" in decoded)) return false;
  assert.deepEqual(decodeMetadata(encodeMetadata(decoded.value)), decoded.value);
  return true;
};

/** With a checksum that fits, as the checksum alone would refuse every change. */
const superblock: Target = (input) => {
  if (input.length >= 4096) input.writeUInt32BE(crc32(input.subarray(0, 4092)), 4092);
  const opened = outcomeOf(() => sealedRegions(decodeSuperblock(input), 2 ** 40));
  if (!("value" in opened)) return false;
  for (const { offset, length } of Object.values(opened.value)) assert.ok(offset + length <= 2 ** 40);
  return true;
};

/**
 * What JSON.parse reads the scanner, which takes texts that are too long for it, must read as well, where the text says nothing twice
 * and nothing in two ways. Of other texts both may think differently: QEMU writes none.
 */
const vmdescription: Target = (input, random) => {
  const scanner = new DescriptionScanner();
  const reader = new DescriptionReader();
  reader.restart(input.length + 1);
  reader.push(input);
  reader.restart(input.length);
  for (const piece of cut(random, input)) {
    scanner.push(piece);
    reader.push(piece);
  }
  const found = scanner.finish();
  const read = reader.finish();
  const expected = parsed(input.toString());
  if (expected !== undefined) {
    assert.deepEqual(found, expected, "the scanner and JSON.parse differ");
    assert.deepEqual(read, expected, "the reader and JSON.parse differ");
  }
  return found !== null;
};

/** Texts come back as they were read, and everything lies within the file. */
const libvirt: Target = (input) => {
  const decoded = outcomeOf(() => {
    const header = decodeLibvirtHeader(input, input.length);
    return { header, data: decodeLibvirtData(header, input.subarray(HEADER_BYTES, header.streamOffset)) };
  });
  if (!("value" in decoded)) return false;
  const { header, data } = decoded.value;
  assert.ok(header.streamOffset <= input.length, "the stream begins behind the file");
  domainUuid(data.xml);
  const start = encodeLibvirtStart({ ...data, complete: true, running: header.running });
  const again = decodeLibvirtHeader(start, start.length);
  assert.deepEqual(decodeLibvirtData(again, start.subarray(HEADER_BYTES)), data);
  return true;
};

function parsed(text: string): unknown {
  let value: { page_size?: unknown; devices?: unknown };
  try {
    value = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null || JSON.stringify(value) !== text) return undefined;
  const { page_size: pageSize, devices } = value;
  if (typeof pageSize !== "number" || !Array.isArray(devices)) return null;
  const names = devices.map((device: { name?: unknown } | null) => device?.name);
  return names.every((name) => typeof name === "string") ? { pageSize, devices: names } : null;
}

export const TARGETS: Readonly<Record<Exclude<Kind, "image">, Target>> = {
  stream,
  index,
  metadata,
  superblock,
  vmdescription,
  libvirt,
  answers,
  ...MAPPED_TARGETS,
};
