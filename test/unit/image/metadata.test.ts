import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { decodeMetadata, encodeMetadata } from "../../../src/formats/image/metadata.ts";
import { exampleMetadata } from "../../support/example-image.ts";

const metadata = exampleMetadata();

function json(value: unknown): Buffer {
  return Buffer.from(JSON.stringify(value));
}

function failing(code: string, ...words: string[]): unknown {
  return expect.objectContaining({ code, message: expect.stringMatching(words.join(".*")) });
}

test("metadata comes back as it was", () => {
  expect(decodeMetadata(encodeMetadata(metadata))).toEqual(metadata);
});

test("names and values that JSON or JavaScript could trip over survive", () => {
  const user = JSON.parse('{"__proto__":"p","constructor":"c","":"\\ud800","ü":"\\u0000"}');
  expect(decodeMetadata(encodeMetadata({ ...metadata, user })).user).toEqual(user);
  expect(Object.keys(decodeMetadata(encodeMetadata({ ...metadata, user })).user)).toEqual(Object.keys(user));
});

test("fields of later writers are left out, at every level", () => {
  const later = {
    ...metadata,
    later: [1],
    evidence: { ...metadata.evidence, later: 1 },
    ramBlocks: [{ name: "mem", usedLength: 8192, later: 1 }],
  };
  expect(decodeMetadata(json(later))).toEqual(metadata);
});

test("what QMP told of the VM may be absent, as in older images, and is damage when it is of another type", () => {
  const { vm, ...older } = metadata;
  expect(decodeMetadata(json(older))).toEqual(metadata);
  expect(() => decodeMetadata(json({ ...metadata, vm: { running: 1 } }))).toThrow(
    failing("IMAGE_DAMAGED", "field vm.uuid: it is missing"),
  );
});

const OBLIGATORY = Object.keys(metadata).filter((field) => field !== "vm");

test.each(OBLIGATORY)("without %s it is damaged, and the error names the field", (field) => {
  expect(() => decodeMetadata(json({ ...metadata, [field]: undefined }))).toThrow(
    failing("IMAGE_DAMAGED", `field ${field}: it is missing`),
  );
});

test.each<[string, Record<string, unknown>, string]>([
  ["a number for a text", { writer: 1 }, "field writer: 1 is not a string"],
  ["a text for a number", { multifdChannels: "2" }, 'field multifdChannels: "2" is not an integer'],
  ["too many channels", { multifdChannels: 256 }, "field multifdChannels: 256"],
  ["a fraction", { pageSize: 0.5 }, "field pageSize: 0.5"],
  ["no page size", { pageSize: 0 }, "field pageSize: 0"],
  ["null where something must be", { needsZeroedRam: null }, "field needsZeroedRam: null"],
  ["another shape of UUID", { vmUuid: "0011" }, "field vmUuid"],
  ["an object for a list", { devices: {} }, "field devices: an object is not an array"],
  ["a list for an object", { user: [] }, "field user: an array is not an object"],
  ["a foreign item", { capabilities: ["a", 2] }, "field capabilities\\[1\\]: 2"],
  [
    "a broken RAM block",
    { ramBlocks: [{ name: "mem" }] },
    "field ramBlocks\\[0\\].usedLength: it is missing",
  ],
  [
    "a length beyond any file",
    { ramBlocks: [{ name: "m", usedLength: 2 ** 53 }] },
    "ramBlocks\\[0\\].usedLength",
  ],
  ["a user value that is no text", { user: { a: 1 } }, 'field user\\["a"\\]: 1'],
  [
    "base64 with bits left over",
    { userBinary: { a: "AB==" } },
    'field userBinary\\["a"\\]: "AB==" is not base64',
  ],
  ["binary that is no base64", { userBinary: { a: "$$$$" } }, 'field userBinary\\["a"\\]'],
])("%s is damage", (_what, change, message) => {
  expect(() => decodeMetadata(json({ ...metadata, ...change }))).toThrow(failing("IMAGE_DAMAGED", message));
});

test("words of later writers ask for a newer reader", () => {
  expect(() => decodeMetadata(json({ ...metadata, compression: "lz77" }))).toThrow(
    failing("UNSUPPORTED_VERSION", "compression", "lz77", "newer"),
  );
  const evidence = { ...metadata.evidence, decidedBy: "moon" };
  expect(() => decodeMetadata(json({ ...metadata, evidence }))).toThrow(
    failing("UNSUPPORTED_VERSION", "evidence.decidedBy", "moon"),
  );
});

test.each<[string, Buffer]>([
  ["nothing", Buffer.alloc(0)],
  ["no JSON", Buffer.from("{")],
  ["no UTF-8", Buffer.from([0x22, 0xff, 0x22])],
  ["a byte order mark", Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), encodeMetadata(metadata)])],
  ["no object", Buffer.from("[]")],
  ["null", Buffer.from("null")],
  ["endless nesting", Buffer.from("[".repeat(3_000_000))],
  ["deep nesting that is closed", Buffer.from(`{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`)],
])("%s is damage", (_what, bytes) => {
  expect(() => decodeMetadata(bytes)).toThrow(failing("IMAGE_DAMAGED", "metadata"));
});

test("metadata that no reader would accept for its size is not written", () => {
  const user = { big: "x".repeat(4 * 1024 * 1024) };
  expect(() => encodeMetadata({ ...metadata, user })).toThrow(failing("USAGE", "4194304", "--meta-file"));
});

test("metadata with more values than any VM needs are neither written nor parsed", () => {
  const devices = Array.from({ length: 2 ** 18 }, () => "");
  expect(() => encodeMetadata({ ...metadata, devices })).toThrow(failing("USAGE", "values", "--meta-file"));
  expect(() => decodeMetadata(json({ ...metadata, devices }))).toThrow(failing("IMAGE_DAMAGED", "262144"));
});

test("brackets and quotes inside of texts count for nothing", () => {
  const user = { a: `${'[{"\\\\"'.repeat(50_000)}`, "[[[[[[[[[[[[[[[[[[": "" };
  expect(decodeMetadata(encodeMetadata({ ...metadata, user })).user).toEqual(user);
});
