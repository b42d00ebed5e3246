import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import type { MappedStream } from "../../../src/formats/mapped-ram/model.ts";
import { isQemuStream, MappedStreamWalker } from "../../../src/formats/mapped-ram/stream.ts";
import { type MappedFileOptions, mappedFile, restOf } from "../../support/mapped-file.ts";
import * as wire from "../../support/stream-builder.ts";

const PAGE = 4096;
const BLOCKS = [
  { name: "mem", bytes: 70 * PAGE, pages: { 0: 1, 69: 2 } },
  { name: "pc.bios", bytes: 2 * PAGE, pages: { 1: 3 } },
];

/** Walks a file as a reader does that takes `piece` bytes at a time. */
function walk(file: Buffer, base = 0, piece = 4096): MappedStream {
  const walker = new MappedStreamWalker(base);
  while (walker.wanted < file.length) {
    walker.push(file.subarray(walker.wanted, walker.wanted + piece));
  }
  return walker.finish();
}

function harmed(harm: (header: Buffer) => void): () => MappedStream {
  return () => walk(mappedFile({ blocks: BLOCKS, header: harm }));
}

const failing = (code: string, text: string): object =>
  expect.objectContaining({ code, message: expect.stringContaining(text) });

test.each([1, 7, 4096, 2 ** 22])("what it says is found, %d bytes at a time", (piece) => {
  const file = mappedFile({ blocks: BLOCKS, devices: ["timer", "cpu"] });
  const stream = walk(file, 0, piece);
  expect(stream).toMatchObject({
    base: 0,
    end: file.length,
    machine: "pc-q35-10.0",
    pageSize: PAGE,
    undecided: [],
  });
  expect(stream.capabilities).toEqual(["mapped-ram"]);
  expect(stream.devices).toEqual(["timer", "cpu"]);
  const [mem, bios] = stream.blocks;
  expect(mem).toEqual({
    name: "mem",
    usedLength: 70 * PAGE,
    pageSize: PAGE,
    bitmapOffset: 0x88,
    pagesOffset: 2 ** 20,
  });
  expect(bios).toMatchObject({ name: "pc.bios", pagesOffset: 2 ** 21 });
  expect(file[bios?.bitmapOffset ?? 0]).toBe(0b10);
});

test("bitmaps and pages are passed over, not read", () => {
  const file = mappedFile({ blocks: BLOCKS });
  const before = walk(file);
  for (const { bitmapOffset, pagesOffset, usedLength } of before.blocks) {
    file.fill(0xff, bitmapOffset, pagesOffset + usedLength);
  }
  // The walker is fed these bytes as the rest of a piece, and forgets them.
  expect(walk(file, 0, 2 ** 22)).toEqual(before);
});

test("behind a manager's header all offsets are those of the file", () => {
  const base = 12288;
  const stream = walk(mappedFile({ blocks: BLOCKS, base }), base);
  expect(stream.base).toBe(base);
  expect(stream.blocks[0]).toMatchObject({ bitmapOffset: base + 0x88, pagesOffset: 2 ** 20 });
});

test("a file cut anywhere, or with something behind its end, is damaged", () => {
  const file = mappedFile({ blocks: BLOCKS });
  const [mem] = walk(file).blocks;
  const middle = (mem?.pagesOffset ?? 0) + 5 * PAGE;
  const cuts = [
    0,
    7,
    8,
    30,
    0x6c,
    0x80,
    0x88,
    0x90,
    middle,
    ...Array.from({ length: 150 }, (_, n) => file.length - 1 - n),
  ];
  const eofByte = file.lastIndexOf(Buffer.from([0x00, 0x06]));
  for (const cut of cuts.filter((length) => length !== eofByte + 1)) {
    expect(() => walk(file.subarray(0, cut)), `cut at ${cut}`).toThrow(failing("IMAGE_DAMAGED", ""));
  }
  // What is left ends as a stream of a machine without vmdescription (suppress-vmdesc) does.
  expect(walk(file.subarray(0, eofByte + 1)).undecided.join()).toContain("suppress-vmdesc");
  const longer = Buffer.concat([file, Buffer.alloc(1, 0x20)]);
  expect(() => walk(longer)).toThrow(failing("IMAGE_DAMAGED", "does not end here"));
});

test("a header that cannot be is found, and the error says what is wrong", () => {
  const harms = [
    [(header: Buffer) => header.writeUInt32BE(2, 0), "UNSUPPORTED_VERSION", "version 2"],
    [(header: Buffer) => header.writeUInt32BE(0, 0), "IMAGE_DAMAGED", "header version 0"],
    [(header: Buffer) => header.writeBigUInt64BE(8192n, 4), "IMAGE_DAMAGED", "pages of 8192 bytes"],
    [(header: Buffer) => header.writeBigUInt64BE(0x90n, 12), "IMAGE_DAMAGED", "its bitmap at 144"],
    [(header: Buffer) => header.writeBigUInt64BE(0x100800n, 20), "IMAGE_DAMAGED", "its pages at"],
    [(header: Buffer) => header.writeBigUInt64BE(0n, 20), "IMAGE_DAMAGED", "its pages at 0"],
    [(header: Buffer) => header.writeBigUInt64BE(2n ** 53n, 20), "IMAGE_DAMAGED", "its pages at"],
    [(header: Buffer) => header.writeBigUInt64BE(2n ** 64n - 4096n, 20), "IMAGE_DAMAGED", "its pages at"],
  ] as const;
  for (const [harm, code, text] of harms) expect(harmed(harm)).toThrow(failing(code, text));
});

test("block lists that cannot be are found", () => {
  const twice: MappedFileOptions = { blocks: [...BLOCKS, ...BLOCKS] };
  expect(() => walk(mappedFile(twice))).toThrow(failing("IMAGE_DAMAGED", "one twice"));
  const odd = { blocks: [{ name: "mem", bytes: PAGE + 1, pages: {} }] };
  expect(() => walk(mappedFile(odd))).toThrow(failing("IMAGE_DAMAGED", ""));
});

test("streams that are no mapped-ram image say so", () => {
  const plain = mappedFile({ blocks: BLOCKS, capabilities: [] });
  expect(() => walk(plain)).toThrow(failing("NOT_AN_IMAGE", "without the capability mapped-ram"));
  expect(isQemuStream(plain)).toBe(true);
  expect(isQemuStream(Buffer.from("MFDIMAGE"))).toBe(false);
  expect(isQemuStream(Buffer.from("QEV"))).toBe(false);
});

test("a background snapshot, whose bitmaps QEMU never writes, is refused", () => {
  const part = wire.partSection(1, wire.eosWord);
  const rest = Buffer.concat([part, restOf(["timer"]).subarray(wire.endSection(1, wire.eosWord).length)]);
  expect(() => walk(mappedFile({ blocks: BLOCKS, rest }))).toThrow(
    failing("IMAGE_DAMAGED", "background-snapshot"),
  );
});

test("records among RAM's sections are damage", () => {
  const part = wire.partSection(1, Buffer.concat([wire.zeroRecord(0, "mem"), wire.eosWord]));
  const rest = Buffer.concat([part, restOf(["timer"])]);
  expect(() => walk(mappedFile({ blocks: BLOCKS, rest }))).toThrow(failing("IMAGE_DAMAGED", "it has none"));
});

test("another iterable device leaves the end undecided, and the pages where they are", () => {
  const other = wire.startSection(9, Buffer.alloc(40, 0x33), "vfio", 1);
  const stream = walk(mappedFile({ blocks: BLOCKS, rest: Buffer.concat([other, restOf(["timer"])]) }));
  expect(stream.blocks).toHaveLength(2);
  expect(stream.devices).toEqual(["timer"]);
  expect(stream.undecided.join()).toContain('the iterable device "vfio"');
});
