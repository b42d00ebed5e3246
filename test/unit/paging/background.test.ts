import { Buffer } from "node:buffer";
import fc from "fast-check";
import { expect, test } from "vitest";
import { PageSections } from "../../../src/formats/postcopy/page-section.ts";
import { Background, type Chunk } from "../../../src/pool/paging/background.ts";
import type { PageMap } from "../../../src/pool/paging/page-map.ts";
import { SentPages } from "../../../src/pool/paging/sent-pages.ts";
import { Slots } from "../../../src/pool/paging/slots.ts";
import { mapOf } from "../../support/page-maps.ts";
import { pagesOfSection } from "../../support/page-sections.ts";

const PAGE = 4096;
const RAM_ID = 3;
/** Of a window: 1 MiB. */
const WINDOW_PAGES = 256;

/** A background whose slots are filled when a test says so, with pages that tell where they are from. */
class Stage {
  readonly map: PageMap;
  readonly sent: SentPages;
  readonly slots: Slots;
  readonly background: Background;
  /** Each page as `block:page`, in the order of sending. */
  readonly order: string[] = [];

  constructor(map: PageMap, slots: number, blocks: readonly number[] = [...map.blocks.keys()]) {
    this.map = map;
    this.sent = new SentPages(map);
    this.slots = new Slots(slots);
    this.background = new Background(map, this.sent, this.slots, new PageSections(RAM_ID), blocks);
  }

  /** Does what a reading thread does with the slots that are assigned, or with one of them. */
  fill(only?: number): void {
    for (let slot = 0; slot < this.slots.count; slot++) {
      if (!this.slots.isAssigned(slot) || (only !== undefined && slot !== only)) continue;
      const { block, start, length } = this.slots.window(slot);
      const records = this.slots.records(slot);
      let at = 0;
      for (let page = start / PAGE; page < (start + length) / PAGE; page++) {
        if (!this.map.holds(block, page)) continue;
        records.writeBigUInt64BE(BigInt(page * PAGE) + 0x28n, at);
        records.fill(contentOf(block, page), at + 8, at + 8 + PAGE);
        at += 8 + PAGE;
      }
      this.slots.setReady(slot);
    }
  }

  /** What a fault does. */
  fault(block: number, page: number): void {
    if (!this.sent.has(block, page)) {
      this.sent.add(block, page);
      this.order.push(`${block}:${page}`);
    }
    this.background.touched(block, page);
  }

  send(most: number): Chunk | null {
    const chunk = this.background.next(most);
    if (chunk === null) return null;
    const { block: name, pages } = pagesOfSection(Buffer.concat(chunk.parts), RAM_ID);
    const block = this.map.blocks.findIndex((one) => one.name === name);
    expect(pages.length).toBe(chunk.pages);
    for (const { address, bytes } of pages) {
      expect(bytes?.equals(contentOf(block, address / PAGE)), `page ${address / PAGE}`).toBe(true);
      this.order.push(`${block}:${address / PAGE}`);
    }
    return chunk;
  }

  /** All that is left, with slots filled as soon as they can be. */
  drain(most: number): void {
    for (;;) {
      this.background.assign();
      if (this.background.exhausted) return;
      this.fill();
      while (this.send(most) !== null);
    }
  }
}

function contentOf(block: number, page: number): Buffer {
  return Buffer.alloc(PAGE, `${block}:${page} `);
}

const blocks = fc.array(
  fc.integer({ min: 1, max: 700 }).chain((pages) =>
    fc.record({
      pages: fc.constant(pages),
      held: fc
        .array(fc.tuple(fc.nat(pages - 1), fc.integer({ min: 1, max: 90 })), { maxLength: 6 })
        .map((runs) => pagesOfRuns(runs, pages)),
    }),
  ),
  { minLength: 1, maxLength: 3 },
);

function pagesOfRuns(runs: readonly (readonly [number, number])[], pages: number): number[] {
  const held = new Set<number>();
  for (const [first, count] of runs)
    for (let page = first; page < Math.min(first + count, pages); page++) held.add(page);
  return [...held];
}

/** What happens between chunks: slots are given out or filled, pages are sent, the guest faults, a destination tells what it has. */
const happening = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("assign" as const) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("fill" as const), slot: fc.nat(4) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("send" as const), most: fc.integer({ min: 1, max: 80 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("fault" as const), block: fc.nat(2), page: fc.nat(699) }),
  },
);

test("every page of the image goes out exactly once, whatever the order of slots, faults and windows", () => {
  fc.assert(
    fc.property(
      blocks,
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.tuple(fc.nat(2), fc.nat(699)), { maxLength: 40 }),
      fc.array(happening, { maxLength: 60 }),
      (specs, slots, received, happenings) => {
        const stage = new Stage(mapOf(specs), slots);
        // What a destination has that is resumed.
        const had = new Set<string>();
        for (const [block, spec] of specs.entries()) {
          const bits = new Uint8Array(stage.map.bitmap(block).length);
          for (const [, page] of received.filter(([of, page]) => of === block && page < spec.pages)) {
            bits[page >> 3] = (bits[page >> 3] ?? 0) | (1 << (page & 7));
            had.add(`${block}:${page}`);
          }
          stage.sent.take(block, bits);
        }
        for (const step of happenings) {
          if (step.kind === "assign") stage.background.assign();
          else if (step.kind === "fill") stage.fill(step.slot);
          else if (step.kind === "send") stage.send(step.most);
          else if (step.page < (specs[step.block]?.pages ?? 0)) stage.fault(step.block, step.page);
        }
        stage.drain(64);
        expect(new Set(stage.order).size, "a page was sent twice").toBe(stage.order.length);
        expect(stage.order.filter((page) => had.has(page))).toEqual([]);
        const all = specs.flatMap(({ held }, block) => held.map((page) => `${block}:${page}`));
        const gone = new Set([...stage.order, ...had]);
        expect(all.filter((page) => !gone.has(page))).toEqual([]);
        expect(stage.sent.missing).toBe(0);
      },
    ),
    { numRuns: 60 },
  );
});

const FULL = Array.from({ length: 8 * WINDOW_PAGES }, (_, page) => page);

test("pages near a fault go before all others, those behind it next", () => {
  const stage = new Stage(mapOf([{ pages: FULL.length, held: FULL }]), 1);
  stage.fault(0, 5 * WINDOW_PAGES + 17);
  stage.drain(WINDOW_PAGES);
  const windows = stage.order.slice(1).map((page) => Math.floor(Number(page.slice(2)) / WINDOW_PAGES));
  expect([...new Set(windows)]).toEqual([5, 6, 0, 1, 2, 3, 4, 7]);
});

test("of many faults the latest ones are kept in mind", () => {
  const stage = new Stage(mapOf([{ pages: FULL.length, held: FULL }]), 1);
  for (const window of [6, 4, 2, 0, 7]) stage.fault(0, window * WINDOW_PAGES);
  stage.drain(WINDOW_PAGES);
  const windows = stage.order.slice(5).map((page) => Math.floor(Number(page.slice(2)) / WINDOW_PAGES));
  expect([...new Set(windows)].slice(0, 3)).toEqual([7, 0, 1]);
});

test("a window that is under way is not read a second time", () => {
  const stage = new Stage(mapOf([{ pages: FULL.length, held: FULL }]), 4);
  stage.fault(0, 5 * WINDOW_PAGES);
  stage.background.assign();
  for (const slot of [2, 3]) stage.fill(slot);
  while (stage.send(WINDOW_PAGES) !== null);
  stage.fault(0, 5 * WINDOW_PAGES + 16);
  stage.background.assign();
  const windows = [0, 1, 2, 3].map((slot) => stage.slots.window(slot).start / PAGE / WINDOW_PAGES);
  expect(windows).toEqual([5, 6, 2, 3]);
});

test("a chunk has no more pages than it may, and none that was sent meanwhile", () => {
  const stage = new Stage(mapOf([{ pages: 256, held: FULL.slice(0, 100) }]), 1);
  stage.background.assign();
  stage.fill();
  stage.fault(0, 10);
  expect([stage.send(64)?.pages, stage.send(64)?.pages, stage.send(64)?.pages]).toEqual([10, 64, 25]);
});

test("blocks that it was not given are left alone", () => {
  const both = [
    { pages: 64, held: [1] },
    { pages: 64, held: [2] },
  ];
  const stage = new Stage(mapOf(both), 2, [1]);
  stage.drain(64);
  expect(stage.order).toEqual(["1:2"]);
});

test("windows without anything to send are not read", () => {
  const stage = new Stage(mapOf([{ pages: FULL.length, held: [3 * WINDOW_PAGES] }]), 4);
  stage.background.assign();
  const assigned = [0, 1, 2, 3].filter((slot) => stage.slots.isAssigned(slot));
  expect(assigned.map((slot) => stage.slots.window(slot).start)).toEqual([3 * WINDOW_PAGES * PAGE]);
});

test("a slot is free for the next window when all of it was sent", () => {
  const stage = new Stage(mapOf([{ pages: FULL.length, held: FULL }]), 1);
  stage.background.assign();
  stage.fill();
  stage.send(WINDOW_PAGES);
  expect(stage.slots.isFree(0)).toBe(false);
  expect(stage.send(WINDOW_PAGES)).toBeNull();
  expect(stage.slots.isFree(0)).toBe(true);
});
