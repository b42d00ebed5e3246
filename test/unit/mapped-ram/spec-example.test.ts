import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { decodeMark, encodeMark, type ResumedMark } from "../../../src/formats/mapped-ram/resumed.ts";
import { exampleMapped } from "../../support/example-mapped.ts";
import { hexdump, parseHexdump } from "../../support/hexdump.ts";
import { readMappedBySpec, readMarkBySpec } from "../../support/mapped-spec-reader.ts";
import { findRepoRoot } from "../../support/repo.ts";

const page = readFileSync(join(findRepoRoot(), "docs/formats/mapped-ram.md"), "utf8");
const [dump = "", markDump = ""] = [...page.matchAll(/^```hexdump\n(.*?)\n```$/gms)].map(([, text]) => text);
const shown = parseHexdump(dump);
const example = exampleMapped();
const read = readMappedBySpec(page, shown);

test("the page shows the very bytes that the codec writes", () => {
  expect(hexdump(example.bytes)).toBe(dump);
  expect(shown.equals(example.bytes)).toBe(true);
});

test("a reader made from the page alone finds the pages, the metadata and the places", () => {
  expect(read.blocks.map(({ pages }) => [...pages])).toEqual([
    [
      [0, Buffer.alloc(4096, 0x5a)],
      [1, Buffer.alloc(4096, 0x5b)],
      [17, Buffer.alloc(4096, 0xa5)],
    ],
  ]);
  const { vm, ...written } = example.metadata;
  expect(vm).toBeNull(); // absent in what is written
  expect(read.metadata).toEqual(written);
  expect(Object.fromEntries(read.footer)).toMatchObject({
    ...{ magic: Number(`0x${Buffer.from("MFDMSEAL").toString("hex")}`), version: 1, state: 2 },
    ...{ base: 0, stream_end: example.streamEnd, image_end: shown.length, created: Date.UTC(2026, 0, 1) },
  });
  expect(Object.fromEntries(read.header)).toMatchObject({
    version: 1,
    blocks: 1,
    checksum_kind: 1,
    range_bytes: 65536,
  });
  expect(read.blocks[0]?.record.get("present_pages")).toBe(3);
});

test("the page's checksums are those of the page's bytes", () => {
  for (const [what, computed] of Object.entries(read.computed)) {
    expect(computed, what).toBe(read.footer.get(`${what}_crc32`));
  }
  for (const { stored, computed } of read.blocks) expect(computed).toEqual(stored);
});

test("the example's offsets stand in the table above it", () => {
  const rows = [...page.matchAll(/^\| +0x([0-9a-f]{6}) \| +(\d+) \|/gm)].map(([, at, length]) => [
    Number.parseInt(at as string, 16),
    Number(length),
  ]);
  const { map, metadata, sums, imageEnd, streamEnd } = example.trailer.footer.seal;
  expect(rows).toEqual([
    [0, 0x88],
    [0x88, 8],
    [0x100000, 20 * 4096],
    [0x114000, streamEnd - 0x114000],
    [map.offset, map.length],
    [metadata.offset, metadata.length],
    [sums.offset, sums.length],
    [imageEnd - 8192, 4096],
    [imageEnd - 4096, 4096],
  ]);
});

test("the mark of the page is what the codec writes, and what a reader made from the page understands", () => {
  const image = { uuid: "c0ffee00-0000-4000-8000-000000000002", streamEnd: example.streamEnd };
  const mark: ResumedMark = {
    ...{ resumedMs: Date.UTC(2026, 0, 2), completedMs: null },
    session: "5e551011-0000-4000-8000-000000000003",
    qemu: { pid: 4711, startTicks: 123_456, bootId: "b0071d00-0000-4000-8000-000000000004" },
  };
  expect(hexdump(encodeMark(mark, image))).toBe(markDump);
  expect(decodeMark(parseHexdump(markDump), image)).toEqual(mark);
  expect(readMarkBySpec(page, shown)).toBeNull();
  const marked = Buffer.from(shown);
  parseHexdump(markDump).copy(marked, 0x118000);
  expect(readMarkBySpec(page, marked)).toEqual({
    ...{ state: 1, resumed: mark.resumedMs, completed: 0, streamEnd: image.streamEnd, sumFits: true },
    ...{ image: read.footerUuid, session: "5e551011000040008000000000000003" },
    ...{ pid: 4711, start: 123_456, bootId: "b0071d00000040008000000000000004" },
  });
  // The footer is the same, and so is all that it stands for.
  expect(readMappedBySpec(page, marked)).toEqual(read);
});
