import { Buffer } from "node:buffer";
import fc from "fast-check";
import { expect, test } from "vitest";
import { MultifdError } from "../../src/errors.ts";
import { blocks, ExtentMap } from "../../src/formats/image/blocks.ts";
import { encodeIndex } from "../../src/formats/image/index.ts";
import { decodeIndex, IndexDecoder } from "../../src/formats/image/index-decoder.ts";
import { checkLayout, usedRanges } from "../../src/formats/image/layout.ts";
import { decodeMetadata, encodeMetadata } from "../../src/formats/image/metadata.ts";
import type { Region } from "../../src/formats/image/model.ts";
import { openImage } from "../../src/formats/image/open.ts";
import { sealedRegions } from "../../src/formats/image/regions.ts";
import { buildSeal } from "../../src/formats/image/seal.ts";
import { decodeSuperblock, encodeSuperblock } from "../../src/formats/image/superblock.ts";
import { exampleImage } from "../support/example-image.ts";
import { arbitraryIndex, arbitraryMetadata } from "../support/image-arbitrary.ts";
import { indexAsRead } from "../support/index-as-read.ts";

const example = exampleImage();

const sealable = arbitraryIndex().chain((index) =>
  fc.record({
    index: fc.constant(index),
    metadata: arbitraryMetadata(index.channels.length - 1),
    uuid: fc.uuid(),
    // The latest date that there is.
    createdMs: fc.nat({ max: 8.64e15 }),
  }),
);

/** Runs a decoder on bytes that may be anything. @returns undefined if it refused them as it should */
function refusedOr<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch (error) {
    expect(error).toBeInstanceOf(MultifdError);
    expect(error).toMatchObject({
      code: expect.stringMatching(/^(IMAGE_DAMAGED|NOT_AN_IMAGE|NOT_SEALED|UNSUPPORTED_VERSION)$/),
    });
    return undefined;
  }
}

function flipped(bytes: Buffer, at: number, mask: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = (copy[at] as number) ^ mask;
  return copy;
}

test("any valid image is sealed and opens with what went in", () => {
  fc.assert(
    fc.property(sealable, ({ index, metadata, uuid, createdMs }) => {
      const seal = buildSeal({ uuid, createdMs }, metadata, index);
      const superblock = decodeSuperblock(encodeSuperblock(seal.superblock));
      expect(superblock).toEqual(seal.superblock);
      const regions = sealedRegions(superblock, seal.offset + seal.closing.length);
      const bytes = (region: Region): Buffer =>
        seal.closing.subarray(region.offset - seal.offset, region.offset - seal.offset + region.length);
      const read = { metadata: bytes(regions.metadata), index: bytes(regions.index) };
      expect(openImage(superblock, read, superblock.imageBytes)).toEqual({
        superblock,
        metadata,
        index: indexAsRead(index, regions.index.offset),
      });
    }),
  );
});

test("any metadata comes back as it was", () => {
  fc.assert(
    fc.property(fc.nat(255).chain(arbitraryMetadata), (metadata) => {
      expect(decodeMetadata(encodeMetadata(metadata))).toEqual(metadata);
    }),
  );
});

test("blocks cover a channel once and agree with the map of its extents", () => {
  fc.assert(
    fc.property(arbitraryIndex(), (index) => {
      for (const record of indexAsRead(index).channels) {
        const map = new ExtentMap(record);
        let position = 0;
        for (const [number, block] of [...blocks(record)].entries()) {
          const run = map.locate(position);
          expect(block).toMatchObject({
            position,
            offset: run.offset,
            checksumAt: record.checksumsAt === null ? null : record.checksumsAt + 4 * number,
          });
          expect(run.length).toBeGreaterThanOrEqual(block.length);
          position += block.length;
        }
        expect(position).toBe(record.length);
      }
    }),
  );
});

test("however an index is cut into pieces, the same is read", () => {
  fc.assert(
    fc.property(
      arbitraryIndex(),
      fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1 }),
      (index, cuts) => {
        const bytes = encodeIndex(index);
        const decoder = new IndexDecoder({ offset: 4096, length: bytes.length });
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const length = cuts[i % cuts.length] as number;
          // A private copy that is overwritten at once: a decoder that kept the piece would read nonsense.
          const piece = Uint8Array.from(bytes.subarray(at, at + length));
          decoder.push(piece);
          piece.fill(0xee);
          at += length;
        }
        expect(decoder.finish()).toEqual(indexAsRead(index, 4096));
      },
    ),
  );
});

test("any changed byte of the superblock is refused", () => {
  const bytes = example.bytes.subarray(0, 4096);
  fc.assert(
    fc.property(fc.nat(4095), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      expect(refusedOr(() => decodeSuperblock(flipped(bytes, at, mask)))).toBeUndefined();
    }),
    { numRuns: 2000 },
  );
});

test("changed bytes of an unchecksummed index are refused or harmless", () => {
  const bytes = encodeIndex(example.index);
  const superblock = decodeSuperblock(example.bytes);
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 })), {
        minLength: 1,
        maxLength: 4,
      }),
      (flips) => {
        const changed = flips.reduce((copy, [at, mask]) => flipped(copy, at, mask), bytes);
        const index = refusedOr(() => {
          const decoded = decodeIndex(changed);
          checkLayout(superblock, decoded, example.bytes.length);
          return decoded;
        });
        if (index === undefined) return;
        // Accepted: whatever a reader derives from it must stay inside the file.
        for (const { offset, length } of usedRanges(superblock, index)) {
          expect(offset + length).toBeLessThanOrEqual(example.bytes.length);
        }
        for (const record of index.channels) {
          for (const block of blocks(record)) expect(block.length).toBeLessThanOrEqual(1024 * 1024);
        }
      },
    ),
    { numRuns: 5000 },
  );
});

/** Bytes that get past magics more often than pure noise would. */
const noise = fc
  .tuple(
    fc.constantFrom("", "MFDIMAGE", "MFDINDEX\0\0\0\u0001\0\0\0\u0002\0\0\0\u0001", "{"),
    fc.uint8Array({ maxLength: 300 }),
  )
  .map(([start, rest]) => Buffer.concat([Buffer.from(start, "latin1"), rest]));

test("noise never does more than raise the typed error", () => {
  const before = process.memoryUsage().rss;
  fc.assert(
    fc.property(noise, (bytes) => {
      for (const decode of [decodeSuperblock, decodeIndex, decodeMetadata]) {
        refusedOr(() => decode(bytes));
      }
    }),
    { numRuns: 5000 },
  );
  expect(process.memoryUsage().rss - before).toBeLessThan(256 * 1024 * 1024);
});
