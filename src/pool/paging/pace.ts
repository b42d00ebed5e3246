/** Pages that go out in one go: 256 KiB. A page that the guest waits for is behind one such chunk at most. */
const CHUNK_PAGES = 64;
/** The same while the guest is waiting for pages now and then. */
const SMALL_CHUNK_PAGES = 16;
/** So long after a fault the next one is expected. */
const LIVELY_MS = 5;
/** A fault that took longer than this waited for the disk or the destination, which the background keeps busy. */
const LONG_FAULT_MS = 1;
/** So many times as long as such a fault the background stands still, at most this long. */
const REST_FACTOR = 2;
const LONGEST_REST_MS = 50;

/** How fast the background may go. */
export interface Pace {
  /** Pages of the next chunk. */
  readonly chunkPages: number;
  /** Whether there is a background at all. */
  readonly moves: boolean;
  /** A page that was waited for has gone. */
  served(ms: number): void;
  /** In how many milliseconds the background may go on. */
  readonly rest: number;
  /** So many bytes that nobody waited for have gone. */
  sent(bytes: number): void;
}

/** @param rate "auto": as fast as possible while faults stay short; bytes per second; 0: not at all */
export function paceOf(rate: "auto" | number): Pace {
  return rate === "auto" ? new ConsideratePace() : new SteadyPace(rate);
}

class ConsideratePace implements Pace {
  readonly moves = true;
  #lastFault = Number.NEGATIVE_INFINITY;
  #restUntil = 0;

  get chunkPages(): number {
    return performance.now() - this.#lastFault < LIVELY_MS ? SMALL_CHUNK_PAGES : CHUNK_PAGES;
  }

  served(ms: number): void {
    this.#lastFault = performance.now();
    if (ms < LONG_FAULT_MS) return;
    this.#restUntil = this.#lastFault + Math.min(LONGEST_REST_MS, REST_FACTOR * ms);
  }

  get rest(): number {
    return Math.max(0, this.#restUntil - performance.now());
  }

  sent(): void {}
}

class SteadyPace implements Pace {
  readonly chunkPages: number = SMALL_CHUNK_PAGES;
  readonly #bytesPerMs: number;
  #free = 0;

  constructor(rate: number) {
    this.#bytesPerMs = rate / 1000;
  }

  get moves(): boolean {
    return this.#bytesPerMs > 0;
  }

  served(): void {}

  get rest(): number {
    return Math.max(0, this.#free - performance.now());
  }

  sent(bytes: number): void {
    this.#free = Math.max(this.#free, performance.now()) + bytes / this.#bytesPerMs;
  }
}
