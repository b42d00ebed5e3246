import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { exampleImage, exampleMetadata } from "../../support/example-image.ts";
import { hexdump, parseHexdump } from "../../support/hexdump.ts";
import { findRepoRoot } from "../../support/repo.ts";
import { crcBySpec, readBySpec } from "../../support/spec-reader.ts";

const page = readFileSync(join(findRepoRoot(), "docs/formats/image.md"), "utf8");
const dump = page.match(/^```hexdump\n(.*?)\n```$/ms)?.[1] ?? "";
const shown = parseHexdump(dump);
const example = exampleImage();

test("the page shows the very bytes that the codec writes", () => {
  expect(hexdump(example.bytes)).toBe(dump);
  expect(shown.equals(example.bytes)).toBe(true);
});

test("a reader made from the page alone finds the streams and the metadata", () => {
  const image = readBySpec(page, shown);
  expect(image.channels.map((channel) => channel.bytes)).toEqual(example.streams);
  expect(image.channels.map(({ kind, id }) => [kind, id])).toEqual([
    [1n, 0n],
    [2n, 0n],
    [2n, 1n],
  ]);
  expect(image.channels.map((channel) => channel.tail)).toEqual([0x6cn, 2n ** 64n - 1n, 2n ** 64n - 1n]);
  const { vm, ...written } = exampleMetadata();
  expect(vm).toBeNull(); // absent in what is written
  expect(image.metadata).toEqual(written);
  expect(Object.fromEntries(image.superblock)).toMatchObject({
    magic: BigInt(`0x${Buffer.from("MFDIMAGE").toString("hex")}`),
    version: 1n,
    state: 2n,
    image_uuid: 0xc0ffee00_0000_4000_8000_000000000001n,
    created: BigInt(Date.UTC(2026, 0, 1)),
    image_bytes: BigInt(shown.length),
  });
});

test("the page's checksums are those of the page's bytes", () => {
  const { superblock, channels } = readBySpec(page, shown);
  expect(crcBySpec(Buffer.from("123456789"))).toBe(0xcbf43926);
  expect(BigInt(crcBySpec(shown.subarray(0, 4092)))).toBe(superblock.get("superblock_crc32"));
  for (const what of ["metadata", "index"]) {
    const offset = Number(superblock.get(`${what}_offset`));
    const bytes = shown.subarray(offset, offset + Number(superblock.get(`${what}_length`)));
    expect(BigInt(crcBySpec(bytes))).toBe(superblock.get(`${what}_crc32`));
  }
  for (const { bytes, blockBytes, checksums } of channels) {
    const computed = checksums.map((_, n) => crcBySpec(bytes.subarray(n * blockBytes, (n + 1) * blockBytes)));
    expect(computed).toEqual(checksums);
    expect(checksums.length).toBe(Math.ceil(bytes.length / blockBytes));
  }
});

test("the marks of the page's example stand where the page says that barriers and SYNCs are", () => {
  const [main, ...multifd] = readBySpec(page, shown).channels;
  for (const mark of main?.marks ?? []) expect(main?.bytes.readBigUInt64BE(mark)).toBe(0x200n);
  for (const { bytes, marks } of multifd) {
    expect(marks.length).toBe(main?.marks.length);
    for (const mark of marks) expect(bytes.readUInt32BE(mark - 1344 + 8) & 1).toBe(1);
  }
});

test("the page's table of metadata names every field, in the order in which it is written", () => {
  const table = page.split("\n## Metadata\n")[1]?.split("\n#")[0] ?? "";
  const names = [...table.matchAll(/^\| `(\w+)` +\|/gm)].map(([, name]) => name);
  expect(names).toEqual(Object.keys(exampleMetadata()));
});
