import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { type Tail, TailFinder, VMDESCRIPTION_LIMIT } from "../../../src/formats/migration/tail-finder.ts";
import { be32, eofByte, vmdescription, vmdescriptionJson } from "../../support/stream-builder.ts";

const JSON_TEXT = vmdescriptionJson(["timer"]);
/** A valid description with a device whose fields nest so many levels deeper than itself. */
function nested(depth: number): string {
  const fields = `${"[".repeat(depth)}${"]".repeat(depth)}`;
  return `{"page_size":4096,"devices":[{"name":"timer","fields":${fields}}]}`;
}

const TRUE_TAIL = Buffer.concat([eofByte, vmdescription(JSON_TEXT)]);

function find(...parts: Buffer[]): Tail | null {
  const stream = Buffer.concat(parts);
  const whole = new TailFinder();
  whole.scan(stream, 0);
  const bytewise = new TailFinder();
  for (let i = 0; i < stream.length; i++) bytewise.scan(stream.subarray(i, i + 1), i);
  expect(bytewise.finish()).toEqual(whole.finish());
  return whole.finish();
}

/** Blanks that make a text one that is scanned, and not parsed as a whole. */
const LONG = " ".repeat(256 * 1024);

test("a vmdescription that ends with the stream is found, with the EOF byte before it", () => {
  const found = { eofByte: 300, pageSize: 4096, devices: ["timer"] };
  expect(find(Buffer.alloc(300, 0x7b), TRUE_TAIL)).toEqual(found);
});

test.each([
  ["an escaped name", '{"page_size":4096,"devices":[{"name":"ti\\u006der"}]}'],
  ["strange texts", '{"page_size":4096,"a":"]}\\"\\\\","devices":[{"name":"timer","x":"{[:,"}]}'],
  [
    "names elsewhere",
    '{"devices":[{"name":"timer","fields":[{"name":"x"}],"y":{"name":"z"}}],"page_size":4096}',
  ],
  [
    "numbers of all kinds",
    '{"x":[-1.5e+3,0,true,false,null],"devices":[{"name":"timer"}],"page_size":4096 }',
  ],
  ["deep fields", nested(50)],
  ["an escape that JSON does not have", '{"page_size":4096,"devices":[{"name":"timer","x":"\\q"}]}'],
])("a description is understood: %s", (_, text) => {
  const found = { eofByte: 0, pageSize: 4096, devices: ["timer"] };
  expect(find(eofByte, vmdescription(text))).toEqual(found);
  expect(find(eofByte, vmdescription(text + LONG))).toEqual(found);
});

test("QEMU 10's description begins with the configuration", () => {
  const text = `{"configuration":{"vmsd_name":"configuration"},${JSON_TEXT.slice(1)}`;
  expect(find(eofByte, vmdescription(text))).toMatchObject({ eofByte: 0 });
});

test.each([
  ["a byte too many", [TRUE_TAIL, Buffer.from("x")]],
  ["a byte too few", [TRUE_TAIL.subarray(0, -1)]],
  ["a length too long", [eofByte, vmdescription(JSON_TEXT, JSON_TEXT.length + 1)]],
  ["a length too short", [eofByte, vmdescription(JSON_TEXT, JSON_TEXT.length - 1)]],
  ["broken JSON", [eofByte, vmdescription(JSON_TEXT.replace('"devices"', "devices"))]],
  ["JSON of something else", [eofByte, vmdescription('{"devices":[1],"page_size":4096}')]],
  ["a device without a name", [eofByte, vmdescription('{"devices":[{"id":"a"}],"page_size":4096}')]],
  ["a device whose name is no text", [eofByte, vmdescription('{"devices":[{"name":1}],"page_size":4096}')]],
  ["devices that are no list", [eofByte, vmdescription('{"devices":{"name":"a"},"page_size":4096}')]],
  ["a comma too many", [eofByte, vmdescription('{"devices":[],"page_size":4096,}')]],
  ["an array closed as an object", [eofByte, vmdescription('{"devices":[},"page_size":4096}')]],
  ["an object that is not closed", [eofByte, vmdescription('{"devices":[],"page_size":4096')]],
  ["a number that is none", [eofByte, vmdescription('{"devices":[],"page_size":04096}')]],
  ["text behind the object", [eofByte, vmdescription('{"devices":[],"page_size":4096}1')]],
  ["nesting beyond all devices in a long text", [eofByte, vmdescription(nested(64) + LONG)]],
  ["no page size", [eofByte, vmdescription('{"devices":[]}')]],
  ["a second one cut short behind a whole one", [TRUE_TAIL, TRUE_TAIL.subarray(0, -1)]],
  ["no EOF byte", [Buffer.from([0x7e]), vmdescription(JSON_TEXT)]],
  ["an empty description", [eofByte, vmdescription("")]],
  [
    "a description beyond the limit",
    [eofByte, Buffer.from([6]), be32(VMDESCRIPTION_LIMIT + 1), Buffer.from('{"')],
  ],
])("%s is no tail", (_, parts) => {
  expect(find(...parts)).toBeNull();
});

test.each([
  ["JSON of something else", '{"devices":[1],"page_size":4096}'],
  ["a device without a name", '{"devices":[{"id":"a"}],"page_size":4096}'],
  ["devices that are no list", '{"devices":{"name":"a"},"page_size":4096}'],
  ["a comma too many", '{"devices":[],"page_size":4096,}'],
  ["a number that is none", '{"devices":[],"page_size":04096}'],
  ["text behind the object", '{"devices":[],"page_size":4096}1'],
  ["no page size", '{"devices":[]}'],
])("%s is no tail either when the text is long", (_, text) => {
  expect(find(eofByte, vmdescription(text + LONG))).toBeNull();
});

test.each([
  ["one that dies at a control byte", Buffer.from('\x00\x06\x00\x00\x01\x00{"page_size": \x01')],
  ["one whose death is the true EOF byte", Buffer.from('\x00\x06\x00\x00\x01\x00{"page_size')],
  ["one of length 0", Buffer.from("\x00\x06\x00\x00\x00\x00{")],
  ["a whole one that is not the last", TRUE_TAIL],
])("a false candidate does not hide the true one: %s", (_, before) => {
  expect(find(before, TRUE_TAIL)).toMatchObject({ eofByte: before.length });
});

test.each([0, 1])("a description of 256 KiB and %i bytes is understood", (more) => {
  const text = JSON_TEXT + " ".repeat(256 * 1024 + more - JSON_TEXT.length);
  expect(find(eofByte, vmdescription(text))).toMatchObject({ eofByte: 0, devices: ["timer"] });
});

test("a long one that dies leaves nothing to a short one, and the other way round", () => {
  const long = vmdescription(JSON_TEXT.replace("timer", "other") + LONG);
  const short = vmdescription(JSON_TEXT.replace("timer", "other"));
  expect(find(eofByte, long.subarray(0, -9), TRUE_TAIL)).toMatchObject({ devices: ["timer"] });
  expect(find(eofByte, short.subarray(0, -9), eofByte, vmdescription(JSON_TEXT + LONG))).toMatchObject({
    devices: ["timer"],
  });
});

test("a true prefix inside the length of a false one is found", () => {
  // Section 6 closes, then come EOF and a length of 0x00017b22: 00 06 | 00 06 00 01 7b 22 7b.
  const padding = 0x17b22 - JSON_TEXT.length;
  const text = JSON_TEXT.replace("timer", `timer${"r".repeat(padding)}`);
  const footer = Buffer.from("7e00000006", "hex");
  expect(find(footer, eofByte, vmdescription(text))).toMatchObject({ eofByte: 5 });
});

test("a bare EOF byte behind a footer is told from other ends", () => {
  const ends = (...parts: Buffer[]) => {
    const finder = new TailFinder();
    for (const part of parts) finder.scan(part, 0);
    return finder.endsWithBareEof;
  };
  expect(ends(Buffer.from("557e00000006", "hex"), eofByte)).toBe(true);
  expect(ends(Buffer.from("557e00000006", "hex"))).toBe(false);
  expect(ends(TRUE_TAIL)).toBe(false);
});
