/**
 * Shared memory of one run: how main and workers see each other without messages. Every word has one
 * writer, or is only ever added to atomically.
 */

/** One main channel, 255 multifd channels, and as many that only look whether somebody listens. */
export const MAX_CONNECTIONS = 512;

const CURSOR = 0;
const STORED = 1;
const PACER = 2;
const RAM = 3;
const ROOM = 4;
const RECEIVED = 8;
const WORDS_64 = RECEIVED + MAX_CONNECTIONS;

const BELL = 0;
const GIVE_UP = 1;
const TAIL_SENT = 2;
const FINISHED = 3;
const DELIVERED = 4;
const CONNECTIONS = 5;
const PREPARED = 6;
const RETURN_PATH = 7;
const IDENTIFIED = 8;
const PARTIES = 9;
const ARRIVALS = 10;
const LAID_OUT = 11;
const TAKEN = 16;
const IDENTITY = TAKEN + MAX_CONNECTIONS;
const SYNCS = IDENTITY + MAX_CONNECTIONS;
const WORDS_32 = SYNCS + MAX_CONNECTIONS;

/** What a connection turned out to be; "unknown" until its first bytes came. */
export type Identity = "unknown" | "main" | number;

export class ControlBlock {
  readonly memory: SharedArrayBuffer;
  readonly #wide: BigInt64Array;
  readonly #words: Int32Array;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(WORDS_64 * 8 + WORDS_32 * 4)) {
    this.memory = memory;
    this.#wide = new BigInt64Array(memory, 0, WORDS_64);
    this.#words = new Int32Array(memory, WORDS_64 * 8, WORDS_32);
  }

  /** Claims file space for one extent and returns where it starts. */
  claim(bytes: number): number {
    return Number(Atomics.add(this.#wide, CURSOR, BigInt(bytes)));
  }

  /** File space claimed so far, counted from where the first extent may start. */
  get claimed(): number {
    return Number(Atomics.load(this.#wide, CURSOR));
  }

  set claimed(bytes: number) {
    Atomics.store(this.#wide, CURSOR, BigInt(bytes));
  }

  /**
   * Claims the right to reserve the next `bytes` of file space, where what is reserved ends before `end`.
   * @returns where they start; null: somebody has reserved so far, or is about to
   */
  claimRoom(end: number, bytes: number): number | null {
    for (;;) {
      const start = Atomics.load(this.#wide, ROOM);
      if (end <= start) return null;
      if (Atomics.compareExchange(this.#wide, ROOM, start, start + BigInt(bytes)) === start) {
        return Number(start);
      }
    }
  }

  /** Adds to the bytes stored by all channels and returns the new sum. */
  addStored(bytes: number): number {
    return Number(Atomics.add(this.#wide, STORED, BigInt(bytes))) + bytes;
  }

  /**
   * Reserves a turn on the shared budget of a rate limit.
   * @returns when this transfer may happen, in microseconds on the caller's clock
   */
  reserveTurn(nowMicros: number, costMicros: number): number {
    for (;;) {
      const free = Atomics.load(this.#wide, PACER);
      const start = free > BigInt(nowMicros) ? free : BigInt(nowMicros);
      if (Atomics.compareExchange(this.#wide, PACER, free, start + BigInt(costMicros)) === free) {
        return Number(start);
      }
    }
  }

  /** Until when the budget of the rate limit is spent, in microseconds on the callers' clock. */
  get reservedUntil(): number {
    return Number(Atomics.load(this.#wide, PACER));
  }

  /** Save: the size of all RAM blocks, as soon as main has listed them; 0 before. */
  get ramBytes(): number {
    return Number(Atomics.load(this.#wide, RAM));
  }

  set ramBytes(bytes: number) {
    Atomics.store(this.#wide, RAM, BigInt(bytes));
  }

  /** Bytes that moved on a connection. One writer: the worker that has it. */
  setMoved(connection: number, bytes: number): void {
    Atomics.store(this.#wide, RECEIVED + connection, BigInt(bytes));
  }

  moved(connection: number): number {
    return Number(Atomics.load(this.#wide, RECEIVED + connection));
  }

  /** How many connections the run has by now, main included. */
  get connections(): number {
    return Atomics.load(this.#words, CONNECTIONS);
  }

  set connections(count: number) {
    Atomics.store(this.#words, CONNECTIONS, count);
  }

  /** The worker owns the connection's descriptor from here on. */
  take(connection: number): void {
    Atomics.store(this.#words, TAKEN + connection, 1);
  }

  isTaken(connection: number): boolean {
    return Atomics.load(this.#words, TAKEN + connection) === 1;
  }

  identify(connection: number, identity: "main" | number): void {
    Atomics.store(this.#words, IDENTITY + connection, identity === "main" ? 1 : 2 + identity);
    Atomics.add(this.#words, IDENTIFIED, 1);
    this.ring();
  }

  /** How many connections have said what they are. */
  get identified(): number {
    return Atomics.load(this.#words, IDENTIFIED);
  }

  /** Save: the target may be written from now on. */
  setPrepared(): void {
    Atomics.store(this.#words, PREPARED, 1);
    this.ring();
  }

  get prepared(): boolean {
    return Atomics.load(this.#words, PREPARED) === 1;
  }

  /** Waits until the target may be written. False: the run is given up instead. */
  async whenPrepared(): Promise<boolean> {
    if (!this.prepared) await this.until(() => this.prepared || this.giveUp);
    return this.prepared;
  }

  /** Save: QEMU opened a return path, on which nobody will answer. */
  setReturnPath(): void {
    Atomics.store(this.#words, RETURN_PATH, 1);
  }

  get returnPath(): boolean {
    return Atomics.load(this.#words, RETURN_PATH) === 1;
  }

  identity(connection: number): Identity {
    const word = Atomics.load(this.#words, IDENTITY + connection);
    if (word === 0) return "unknown";
    return word === 1 ? "main" : word - 2;
  }

  /** Save by pages: where every page goes is known. */
  setLaidOut(): void {
    Atomics.store(this.#words, LAID_OUT, 1);
    this.ring();
  }

  get laidOut(): boolean {
    return Atomics.load(this.#words, LAID_OUT) === 1;
  }

  /** Save by pages: main and all its channels are there, so that it is known who has to come to a barrier. */
  setParties(count: number): void {
    Atomics.store(this.#words, PARTIES, count);
    this.ring();
  }

  /** 0 while it is not known. */
  get parties(): number {
    return Atomics.load(this.#words, PARTIES);
  }

  /**
   * Save by pages: all that this connection carried up to its barrier number `count`, from 1, is written.
   * Nobody passes a barrier before all have come to it, so that one sum tells of all barriers.
   */
  arriveAtBarrier(connection: number, count: number): void {
    Atomics.store(this.#words, SYNCS + connection, count);
    const arrivals = Atomics.add(this.#words, ARRIVALS, 1) + 1;
    const { parties } = this;
    // Only the last one wakes the others; before the parties are known, main itself is waited for.
    if (parties === 0 || arrivals === parties * count) this.ring();
  }

  /** Barriers that a connection has come to. */
  barriersReached(connection: number): number {
    return Atomics.load(this.#words, SYNCS + connection);
  }

  /** Whether all have come to barrier number `count`. */
  barrierOpen(count: number): boolean {
    const { parties } = this;
    return parties > 0 && Atomics.load(this.#words, ARRIVALS) >= parties * count;
  }

  /** Restore: SYNC packets of a channel that were written to its socket whole. */
  setSyncsSent(connection: number, count: number): void {
    Atomics.store(this.#words, SYNCS + connection, count);
    this.ring();
  }

  syncsSent(connection: number): number {
    return Atomics.load(this.#words, SYNCS + connection);
  }

  /** Restore: one more channel is checked, sent and read by the peer. */
  addDelivered(): void {
    Atomics.add(this.#words, DELIVERED, 1);
    this.ring();
  }

  get delivered(): number {
    return Atomics.load(this.#words, DELIVERED);
  }

  /** Restore: the last byte of main was written; from now on the peer may close. */
  setTailSent(): void {
    Atomics.store(this.#words, TAIL_SENT, 1);
    this.ring();
  }

  get tailSent(): boolean {
    return Atomics.load(this.#words, TAIL_SENT) === 1;
  }

  /** Restore: everything is delivered; feeders that kept their connection open may end. Save: nothing is received any more. */
  setFinished(): void {
    Atomics.store(this.#words, FINISHED, 1);
    this.ring();
  }

  get finished(): boolean {
    return Atomics.load(this.#words, FINISHED) === 1;
  }

  /** Nobody waits for a turn any more. Drainers read nothing more. Feeders send nothing more, but keep their connections open until the peer or main ends them. */
  setGiveUp(): void {
    Atomics.store(this.#words, GIVE_UP, 1);
    this.ring();
  }

  get giveUp(): boolean {
    return Atomics.load(this.#words, GIVE_UP) === 1;
  }

  /** Wakes everybody who waits for a change. */
  ring(): void {
    Atomics.add(this.#words, BELL, 1);
    Atomics.notify(this.#words, BELL);
  }

  /** Waits until a condition on this block holds, without ever blocking the thread's event loop. */
  async until(condition: () => boolean): Promise<void> {
    for (;;) {
      const heard = Atomics.load(this.#words, BELL);
      if (condition()) return;
      // The time-out is a safety net only: a lost wake-up costs 100 ms and never a hang.
      const wait = Atomics.waitAsync(this.#words, BELL, heard, 100);
      if (wait.async) await wait.value;
    }
  }
}
