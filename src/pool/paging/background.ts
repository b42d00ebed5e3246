import { PAGE_RECORD_BYTES } from "../../formats/migration/record-writer.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import type { PageSections } from "../../formats/postcopy/page-section.ts";
import type { PageMap } from "./page-map.ts";
import type { SentPages } from "./sent-pages.ts";
import { type Slots, WINDOW_BYTES, type Window } from "./slots.ts";

/** Windows that were asked for by faults and are not assigned: the latest count, older ones wait for their turn in order. */
const HOT_WINDOWS = 8;
/** First byte of a slot's records that is data. */
const HEAD_BYTES: number = PAGE_RECORD_BYTES - PAGE_SIZE;

/** What goes out in one go. */
export interface Chunk {
  readonly parts: readonly Uint8Array[];
  readonly pages: number;
}

/** A slot that is being sent: how far. */
interface Sending {
  readonly slot: number;
  readonly window: Window;
  /** The next page to look at, and which record it would be. */
  page: number;
  record: number;
}

/** Chooses what is sent besides what the guest waits for: what lies near a fault first, then all of RAM in order. */
export class Background {
  readonly #map: PageMap;
  readonly #sent: SentPages;
  readonly #slots: Slots;
  readonly #sections: PageSections;
  /** Windows near faults, the latest last. */
  readonly #hot: Window[] = [];
  readonly #windows: Iterator<Window>;
  /** Slots in the order in which they were assigned. */
  readonly #assigned: number[] = [];
  #sending: Sending | null = null;

  /** @param blocks those whose pages may be sent one by one */
  constructor(
    map: PageMap,
    sent: SentPages,
    slots: Slots,
    sections: PageSections,
    blocks: readonly number[],
  ) {
    this.#map = map;
    this.#sent = sent;
    this.#slots = slots;
    this.#sections = sections;
    this.#windows = windowsOf(map, blocks);
  }

  /** The guest touched this page: what follows it is likely to be next. */
  touched(block: number, page: number): void {
    const start = Math.floor((page * PAGE_SIZE) / WINDOW_BYTES) * WINDOW_BYTES;
    for (const at of [start + WINDOW_BYTES, start]) {
      const length = Math.min(WINDOW_BYTES, this.#map.block(block).usedLength - at);
      if (length <= 0) continue;
      const known = this.#hot.findIndex((one) => one.block === block && one.start === at);
      if (known >= 0) this.#hot.splice(known, 1);
      this.#hot.push({ block, start: at, length });
    }
    if (this.#hot.length > HOT_WINDOWS) this.#hot.splice(0, this.#hot.length - HOT_WINDOWS);
  }

  /** Gives free slots something to do. @returns whether any got something */
  assign(): boolean {
    let any = false;
    for (let slot = 0; slot < this.#slots.count; slot++) {
      if (!this.#slots.isFree(slot)) continue;
      const window = this.#nextWindow();
      if (window === null) break;
      this.#slots.assign(slot, window);
      this.#assigned.push(slot);
      any = true;
    }
    return any;
  }

  /** Whether next() would answer a chunk, or find that a slot has nothing left. */
  get ready(): boolean {
    return this.#sending !== null || this.#assigned.some((slot) => this.#slots.isReady(slot));
  }

  /** Everything was sent, or is waited for by somebody else. */
  get exhausted(): boolean {
    return this.#sending === null && this.#assigned.length === 0;
  }

  /**
   * The next pages, which count as sent from here on. What the chunk before had must have been taken by the kernel.
   * @param most pages
   * @returns null: no slot is ready
   */
  next(most: number): Chunk | null {
    for (;;) {
      this.#sending ??= this.#begin();
      if (this.#sending === null) return null;
      const chunk = this.#chunk(this.#sending, most);
      if (chunk !== null) return chunk;
      this.#slots.free(this.#sending.slot);
      this.#sending = null;
    }
  }

  #begin(): Sending | null {
    const at = this.#assigned.findIndex((slot) => this.#slots.isReady(slot));
    if (at < 0) return null;
    const [slot] = this.#assigned.splice(at, 1) as [number];
    const window = this.#slots.window(slot);
    return { slot, window, page: window.start / PAGE_SIZE, record: 0 };
  }

  /** The next run of records whose pages were not sent. */
  #chunk(sending: Sending, most: number): Chunk | null {
    const { slot, window } = sending;
    const { block } = window;
    const end = (window.start + window.length) / PAGE_SIZE;
    let [first, record, pages] = [-1, 0, 0];
    for (; sending.page < end && pages < most; sending.page++) {
      if (!this.#map.holds(block, sending.page)) continue;
      const sent = this.#sent.has(block, sending.page);
      if (sent && pages > 0) break;
      if (!sent) {
        if (pages === 0) [first, record] = [sending.page, sending.record];
        this.#sent.add(block, sending.page);
        pages++;
      }
      sending.record++;
    }
    if (pages === 0) return null;
    const records = this.#slots.records(slot);
    const from = record * PAGE_RECORD_BYTES + HEAD_BYTES;
    const data = records.subarray(from, from - HEAD_BYTES + pages * PAGE_RECORD_BYTES);
    const head = this.#sections.head(this.#map.block(block).name, first * PAGE_SIZE);
    return { parts: [head, data, this.#sections.end], pages };
  }

  #nextWindow(): Window | null {
    for (let hot = this.#hot.pop(); hot !== undefined; hot = this.#hot.pop())
      if (this.#isWorth(hot)) return hot;
    for (;;) {
      const next = this.#windows.next();
      if (next.done) return null;
      if (this.#isWorth(next.value)) return next.value;
    }
  }

  /** Whether a window has anything to send, and no slot has it. */
  #isWorth({ block, start, length }: Window): boolean {
    const has = (slot: number): boolean => {
      const window = this.#slots.window(slot);
      return window.block === block && window.start === start;
    };
    if (this.#assigned.some(has) || (this.#sending !== null && has(this.#sending.slot))) return false;
    return this.#sent.anyMissing(block, start, length);
  }
}

function* windowsOf(map: PageMap, blocks: readonly number[]): Generator<Window> {
  for (const block of blocks) {
    const { usedLength } = map.block(block);
    for (let start = 0; start < usedLength; start += WINDOW_BYTES) {
      yield { block, start, length: Math.min(WINDOW_BYTES, usedLength - start) };
    }
  }
}
