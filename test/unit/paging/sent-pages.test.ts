import fc from "fast-check";
import { expect, test } from "vitest";
import { SentPages } from "../../../src/pool/paging/sent-pages.ts";
import { bitmapWith, mapOf } from "../../support/page-maps.ts";

const PAGE = 4096;

/** Pages of a block by their numbers; 13 pages end within a byte of the bitmap, 100 within its second word. */
const pages = fc.constantFrom(13, 64, 100).chain((count) =>
  fc.record({
    count: fc.constant(count),
    held: fc.uniqueArray(fc.nat(count - 1)),
    sent: fc.uniqueArray(fc.nat(count - 1)),
    received: fc.uniqueArray(fc.nat(count - 1)),
  }),
);

function without(from: readonly number[], ...gone: (readonly number[])[]): number[] {
  return from.filter((page) => !gone.some((some) => some.includes(page)));
}

test("what is missing is what the image holds and was not sent", () => {
  fc.assert(
    fc.property(pages, ({ count, held, sent }) => {
      const pagesSent = new SentPages(mapOf([{ pages: count, held }]));
      expect([pagesSent.total, pagesSent.missing]).toEqual([held.length, held.length]);
      for (const page of sent) pagesSent.add(0, page);
      expect(pagesSent.missing).toBe(without(held, sent).length);
      for (let page = 0; page < count; page++) expect(pagesSent.has(0, page)).toBe(sent.includes(page));
    }),
  );
});

test("what the destination says it has counts, whatever was sent before", () => {
  fc.assert(
    fc.property(pages, ({ count, held, sent, received }) => {
      const pagesSent = new SentPages(mapOf([{ pages: count, held }]));
      for (const page of sent) pagesSent.add(0, page);
      pagesSent.take(0, bitmapWith(count, received));
      expect(pagesSent.missing).toBe(without(held, received).length);
      for (let page = 0; page < count; page++) expect(pagesSent.has(0, page)).toBe(received.includes(page));
    }),
  );
});

test("bits behind the last page count for nothing, in the image's bitmap nor in the destination's", () => {
  const pagesSent = new SentPages(mapOf([{ pages: 13, held: [0, 12, 13, 14, 63] }]));
  expect(pagesSent.total).toBe(2);
  pagesSent.take(0, bitmapWith(13, [12, 13, 62]));
  expect(pagesSent.missing).toBe(1);
});

test("blocks are counted together, and looked at apart", () => {
  const pagesSent = new SentPages(
    mapOf([
      { pages: 64, held: [1, 2] },
      { pages: 64, held: [1] },
    ]),
  );
  pagesSent.add(1, 1);
  expect([pagesSent.missing, pagesSent.has(0, 1), pagesSent.has(1, 1)]).toEqual([2, false, true]);
});

test("a stretch misses something as long as it has a page of the image that was not sent", () => {
  const pagesSent = new SentPages(mapOf([{ pages: 100, held: [3, 40, 99] }]));
  const stretches = [
    [0, 32],
    [32, 32],
    [64, 32],
    [96, 4],
  ] as const;
  const missing = (): boolean[] =>
    stretches.map(([first, count]) => pagesSent.anyMissing(0, first * PAGE, count * PAGE));
  expect(missing()).toEqual([true, true, false, true]);
  pagesSent.add(0, 40);
  pagesSent.add(0, 99);
  expect(missing()).toEqual([true, false, false, false]);
});
