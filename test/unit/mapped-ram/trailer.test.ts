import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { expect, test } from "vitest";
import {
  decodeFooter,
  encodeFooter,
  footerOffset,
  type Seal,
  sealOf,
} from "../../../src/formats/mapped-ram/footer.ts";
import { decodeMap, encodeMap, type RamMapTable } from "../../../src/formats/mapped-ram/map.ts";
import { MappedStreamWalker } from "../../../src/formats/mapped-ram/stream.ts";
import {
  buildTrailer,
  checkAgreement,
  checkSeal,
  type MappedTrailer,
  openTrailer,
} from "../../../src/formats/mapped-ram/trailer.ts";
import { exampleMapped } from "../../support/example-mapped.ts";

const example = exampleMapped();
const { seal } = example.trailer.footer;
const identity = { uuid: "c0ffee00-0000-4000-8000-000000000001", createdMs: 1 };
const place = { base: 0, end: example.streamEnd, crc32: 1 };
const failing = (code: string, text: string): object =>
  expect.objectContaining({ code, message: expect.stringContaining(text) });

function regionOf(bytes: Buffer, { offset, length }: { offset: number; length: number }): Buffer {
  return bytes.subarray(offset, offset + length);
}

/** Opens a whole image as a reader of files would, but for its stream and checksums. */
function open(bytes: Buffer): MappedTrailer {
  const at = footerOffset(bytes.length);
  const found = sealOf(decodeFooter(bytes.subarray(at, at + 4096)));
  checkSeal(found, 0, at + 4096);
  return openTrailer(found, regionOf(bytes, found.map), regionOf(bytes, found.metadata));
}

function withMap(
  change: (block: { -readonly [K in keyof RamMapTable["blocks"][0]]: number }) => void,
): () => unknown {
  const [block] = structuredClone(example.map.blocks) as [RamMapTable["blocks"][0]];
  change(block);
  const sums = Buffer.alloc(4 * Math.ceil(block.usedLength / 65536));
  return () => buildTrailer(identity, place, example.metadata, { checksums: true, blocks: [block] }, sums);
}

test("a sealed image opens with what went in", () => {
  const opened = open(example.bytes);
  expect(opened).toMatchObject({ metadata: example.metadata, map: example.map, seal });
  expect(opened.blocks).toEqual([{ ...example.map.blocks[0], name: "mem" }]);
});

test("every flipped byte of map, metadata and footer is found", () => {
  const bytes = Buffer.from(example.bytes);
  for (const { offset, length } of [
    seal.map,
    seal.metadata,
    { offset: seal.imageEnd - 4096, length: 4096 },
  ]) {
    for (let at = offset; at < offset + length; at++) {
      const old = bytes.readUInt8(at);
      bytes.writeUInt8(old ^ 0x10, at);
      expect(() => open(bytes), `byte ${at}`).toThrow(expect.objectContaining({ exitStatus: 4 }));
      bytes.writeUInt8(old, at);
    }
  }
});

test("a writing footer, or none, is no seal", () => {
  const writing = encodeFooter({ ...identity, state: "writing", seal: null });
  expect(decodeFooter(writing)).toEqual({ ...identity, state: "writing", seal: null });
  expect(() => sealOf(decodeFooter(writing))).toThrow(failing("NOT_SEALED", "never finished"));
  expect(decodeFooter(Buffer.alloc(4096))).toBeNull();
  expect(() => sealOf(null)).toThrow(failing("NOT_SEALED", "no seal of multifd-helper"));
});

test("a footer of a later version, or with unknown features, asks for a newer reader", () => {
  for (const at of [8, 12]) {
    const bytes = encodeFooter(example.trailer.footer);
    bytes.writeUInt32BE(7, at);
    bytes.writeUInt32BE(crc32(bytes.subarray(0, 4092)), 4092);
    expect(() => decodeFooter(bytes)).toThrow(failing("UNSUPPORTED_VERSION", "use a newer one"));
  }
});

test("the footer is the last whole page, whatever the size", () => {
  expect(footerOffset(8192)).toBe(4096);
  expect(footerOffset(8192 + 512)).toBe(4096);
  expect(footerOffset(4095)).toBeLessThan(0);
});

test("places that a footer cannot mean are refused before anything is read", () => {
  const wrong: Partial<Seal>[] = [
    { base: 4096 },
    { imageEnd: seal.imageEnd - 4096 },
    { streamEnd: 0 },
    { streamEnd: seal.map.offset + 1 },
    { map: { ...seal.map, offset: seal.map.offset + 8 } },
    { map: { ...seal.map, length: 2 ** 20 } },
    { metadata: { ...seal.metadata, offset: seal.map.offset } },
    { metadata: { ...seal.metadata, length: 2 ** 30 } },
    { sums: { ...seal.sums, length: 4097 } },
    { sums: { ...seal.sums, offset: 2 ** 52 } },
  ];
  checkSeal(seal, 0, seal.imageEnd);
  for (const change of wrong) {
    expect(() => checkSeal({ ...seal, ...change }, 0, seal.imageEnd), JSON.stringify(change)).toThrow(
      failing("IMAGE_DAMAGED", ""),
    );
  }
});

test("a map that does not fit its stream is never sealed", () => {
  const wrong = [
    withMap((block) => {
      block.usedLength += 1;
    }),
    withMap((block) => {
      block.pageSize = 2048;
    }),
    withMap((block) => {
      block.bitmapOffset = 0;
    }),
    withMap((block) => {
      block.pagesOffset += 1024;
    }),
    withMap((block) => {
      block.pagesOffset = 2 ** 40;
    }),
    withMap((block) => {
      block.presentPages = 21;
    }),
  ];
  for (const build of wrong) expect(build).toThrow(failing("INTERNAL", "no reader would accept it"));
  const sums = () => buildTrailer(identity, place, example.metadata, example.map, Buffer.alloc(4));
  expect(sums).toThrow(failing("INTERNAL", "4 bytes of checksums, not 8"));
  const unnamed = () =>
    buildTrailer(identity, place, { ...example.metadata, ramBlocks: [] }, example.map, Buffer.alloc(8));
  expect(unnamed).toThrow(failing("INTERNAL", "1 blocks and the metadata 0"));
});

test("a map of another layout is refused", () => {
  const bytes = encodeMap(example.map);
  for (const at of [0, 8, 12, 16, 20]) {
    const changed = Buffer.from(bytes);
    changed.writeUInt32BE(77, at);
    expect(() => decodeMap(changed), `byte ${at}`).toThrow(failing("IMAGE_DAMAGED", ""));
  }
  expect(() => decodeMap(bytes.subarray(0, 20))).toThrow(failing("IMAGE_DAMAGED", ""));
});

test("a trailer that belongs to another stream is found", () => {
  const walker = new MappedStreamWalker(0);
  while (walker.wanted < example.streamEnd)
    walker.push(example.bytes.subarray(walker.wanted, example.streamEnd));
  const stream = walker.finish();
  const trailer = open(example.bytes);
  checkAgreement(trailer, stream);
  for (const change of [{ machine: "pc-q35-9.2" }, { devices: [] }, { capabilities: [] }, { blocks: [] }]) {
    expect(() => checkAgreement(trailer, { ...stream, ...change })).toThrow(
      failing("IMAGE_DAMAGED", Object.keys(change)[0] ?? ""),
    );
  }
});
