import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import {
  layOut,
  layOutBlock,
  NOWHERE,
  RAM_SECTION_END,
  ramEndSection,
} from "../../../src/formats/mapped-ram/layout.ts";
import { bitmapBytes } from "../../../src/formats/mapped-ram/model.ts";
import type { RamListed } from "../../../src/formats/migration/record-sink.ts";
import { exampleMapped } from "../../support/example-mapped.ts";

const MIB = 2 ** 20;
const SUBSECTION_BYTES = 47;

const listed = (blocks: RamListed["blocks"], more: Partial<RamListed> = {}): RamListed => {
  return { blocks, pageSize: 4096, capabilities: [], subsections: 24, ...more };
};

test("what stands before the bitmap is, byte for byte, the worked example of the format's page", () => {
  const { bytes, map } = exampleMapped();
  const head = bytes.subarray(0, map.blocks[0]?.bitmapOffset);
  // magic, version, section type, length and text of the machine type
  const subsections = 8 + 5 + "pc-q35-10.0".length;
  const listAt = head.indexOf(Buffer.from([0x03, 0x6d, 0x65, 0x6d])) - 8;
  const before = Buffer.concat([
    head.subarray(0, subsections),
    head.subarray(subsections + SUBSECTION_BYTES, listAt),
  ]);
  const layout = layOut(0, before, listed([{ name: "mem", usedLength: 20 * 4096 }], { subsections }));
  expect(Buffer.from(layout.heads[0] as Uint8Array).equals(head)).toBe(true);
  expect(layout.blocks[0]).toMatchObject({ bitmapOffset: 0x88, pagesOffset: 0x100000 });
  expect(layout.tailOffset).toBe(0x114000);
});

test("blocks lie in ascending order behind their bitmaps, at whole MiB of the file, wherever it begins", () => {
  for (const base of [0, 4096, 7 * 4096, 3 * MIB]) {
    const blocks = [1, 64, 65, 3_000_000].map((pages, n) => ({ name: `b${n}`, usedLength: pages * 4096 }));
    const { blocks: placed, heads, tailOffset } = layOut(base, Buffer.alloc(100), listed(blocks));
    let at = base;
    for (const [n, block] of placed.entries()) {
      expect(block.bitmapOffset).toBe(at + (heads[n] as Uint8Array).length);
      expect(block.pagesOffset % MIB).toBe(0);
      expect(block.pagesOffset - (block.bitmapOffset + bitmapBytes(block))).toBeGreaterThanOrEqual(0);
      expect(block.pagesOffset - (block.bitmapOffset + bitmapBytes(block))).toBeLessThan(MIB);
      at = block.pagesOffset + block.usedLength;
    }
    expect(tailOffset).toBe(at);
  }
});

test("the file of one block has that block's pages alone, from its first byte on", () => {
  const ram = listed([
    { name: "a", usedLength: 4096 },
    { name: "b", usedLength: 8192 },
  ]);
  expect(layOutBlock(4096, ram, "b").blocks.map(({ pagesOffset }) => pagesOffset)).toEqual([NOWHERE, 4096]);
  expect(() => layOutBlock(0, ram, "c")).toThrow('there is no RAMBlock "c": the image has a, b');
});

test("RAM's sections keep their EOS word, and RAM without an END gets one", () => {
  expect(Buffer.from(RAM_SECTION_END).toString("hex")).toBe("0000000000000010");
  expect(Buffer.from(ramEndSection(0x01020304)).toString("hex")).toBe(
    `03${"01020304"}${"0000000000000010"}7e${"01020304"}`,
  );
});

test.each([
  ["x-ignore-shared", listed([{ name: "a", usedLength: 4096 }], { capabilities: ["x-ignore-shared"] })],
  ["1024 bytes", listed([{ name: "a", usedLength: 4096 }], { pageSize: 1024 })],
  ["no RAM", listed([])],
])("a stream that cannot be carried is refused by name: %s", (name, ram) => {
  for (const lay of [() => layOut(0, Buffer.alloc(100), ram), () => layOutBlock(0, ram, null)]) {
    expect(lay).toThrow(expect.objectContaining({ code: "UNSUPPORTED_STREAM" }));
    expect(lay).toThrow(name);
    expect(lay).toThrow("--format stream");
  }
});
