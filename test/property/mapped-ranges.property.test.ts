import fc from "fast-check";
import { expect, test } from "vitest";
import { type MappedBlock, RANGE_BYTES, streamSpans } from "../../src/formats/mapped-ram/model.ts";
import { packetRuns } from "../../src/formats/mapped-ram/packet-runs.ts";
import {
  bitmapOf,
  PIECE_BYTES,
  type Piece,
  PresentPages,
  piecesOf,
  STRETCH_BYTES,
  stretchAt,
} from "../../src/formats/mapped-ram/ranges.ts";

/** A block whose pages are present at random, some of them in long runs, and its bitmap. */
const blockWithBits = fc
  .record({
    pageSize: fc.constantFrom(4096, 16384, 65536),
    pages: fc.integer({ min: 1, max: 3000 }),
    runs: fc.array(fc.tuple(fc.nat(3000), fc.integer({ min: 1, max: 400 })), { maxLength: 12 }),
  })
  .map(({ pageSize, pages, runs }) => {
    const block: MappedBlock = {
      name: "mem",
      usedLength: pages * pageSize,
      pageSize,
      bitmapOffset: 136,
      pagesOffset: 2 ** 20,
    };
    const present = new Set<number>();
    for (const [first, length] of runs) {
      for (let page = first; page < Math.min(first + length, pages); page++) present.add(page);
    }
    // Words beyond the last page are not empty, as they may be in a file from elsewhere.
    const bits = new Uint8Array(Math.ceil(pages / 64) * 8).fill(0xff);
    for (let page = 0; page < pages; page++) if (!present.has(page)) clear(bits, page);
    return { block, bits, present: [...present].sort((a, b) => a - b) };
  });

function clear(bits: Uint8Array, page: number): void {
  bits[page >> 3] = (bits[page >> 3] as number) & ~(1 << (page & 7));
}

/** The pieces of all stretches of a block that is alone. */
function* allPieces(block: MappedBlock, bits: Uint8Array, pieceBytes?: number): Generator<Piece> {
  for (let number = 0; ; number++) {
    const stretch = stretchAt([block], number);
    if (stretch === null) return;
    const { offset, length } = bitmapOf(block, stretch);
    const slice = bits.subarray(offset - block.bitmapOffset, offset - block.bitmapOffset + length);
    yield* piecesOf(block, stretch, slice, pieceBytes);
  }
}

test("every present page is in exactly one piece, in its range, in order", () => {
  fc.assert(
    fc.property(blockWithBits, ({ block, bits, present }) => {
      const found: number[] = [];
      for (const piece of allPieces(block, bits)) {
        expect(piece.length).toBeLessThanOrEqual(PIECE_BYTES);
        expect(piece.offset).toBe(block.pagesOffset + piece.start);
        for (const { number: range, runs } of piece.ranges) {
          for (const { start, end } of runs) {
            expect(Math.floor(start / RANGE_BYTES)).toBe(range);
            expect(Math.floor((end - 1) / RANGE_BYTES)).toBe(range);
            expect(start >= piece.start && end <= piece.start + piece.length).toBe(true);
            for (let at = start; at < end; at += block.pageSize) found.push(at / block.pageSize);
          }
        }
      }
      expect(found).toEqual(present);
    }),
  );
});

test("packets take the pages of a piece in order, 128 but for the last, in runs as long as they can be", () => {
  const some = fc.constantFrom(2 ** 17, 2 ** 18, 2 ** 19, 2 ** 20);
  fc.assert(
    fc.property(blockWithBits, some, ({ block: any, bits, present }, pieceBytes) => {
      // Only pages of 4 KiB go over channels.
      const block = { ...any, pageSize: 4096, usedLength: (any.usedLength / any.pageSize) * 4096 };
      const found: number[] = [];
      for (const piece of allPieces(block, bits, pieceBytes)) {
        const packets = packetRuns(piece);
        for (const [place, runs] of packets.entries()) {
          const bytes = runs.reduce((sum, { start, end }) => sum + end - start, 0);
          if (place < packets.length - 1) expect(bytes).toBe(128 * 4096);
          expect(bytes > 0 && bytes <= 128 * 4096).toBe(true);
          for (const [at, { start, end }] of runs.entries()) {
            if (at > 0) expect(start).toBeGreaterThan((runs[at - 1] as { end: number }).end);
            for (let page = start; page < end; page += 4096) found.push(page / 4096);
          }
        }
      }
      expect(found).toEqual(present);
    }),
  );
});

test("bits are counted as far as there are pages, however the bitmap comes", () => {
  fc.assert(
    fc.property(blockWithBits, fc.integer({ min: 1, max: 100 }), ({ block, bits, present }, piece) => {
      const counter = new PresentPages(block);
      for (let at = 0; at < bits.length; at += piece) counter.push(bits.subarray(at, at + piece));
      expect(counter.count).toBe(present.length);
    }),
  );
});

test("the stretches of several blocks follow each other without a gap", () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1, maxLength: 5 });
  fc.assert(
    fc.property(sizes, (pages) => {
      const blocks = pages.map((count): MappedBlock => {
        return { name: "x", usedLength: count * 4096, pageSize: 4096, bitmapOffset: 0, pagesOffset: 0 };
      });
      const covered = blocks.map(() => 0);
      for (let number = 0; ; number++) {
        const stretch = stretchAt(blocks, number);
        if (stretch === null) break;
        expect(stretch.start).toBe(covered[stretch.block]);
        expect(stretch.length).toBeLessThanOrEqual(STRETCH_BYTES);
        covered[stretch.block] = stretch.start + stretch.length;
      }
      expect(covered).toEqual(blocks.map(({ usedLength }) => usedLength));
    }),
  );
});

test("the stream's own bytes and the pages do not overlap", () => {
  const block: MappedBlock = {
    name: "mem",
    usedLength: 8192,
    pageSize: 4096,
    bitmapOffset: 136,
    pagesOffset: 2 ** 20,
  };
  expect(streamSpans({ base: 0, end: 2 ** 20 + 9000, blocks: [block] })).toEqual([
    { offset: 0, length: 144 },
    { offset: 2 ** 20 + 8192, length: 808 },
  ]);
});
