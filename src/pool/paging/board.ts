import { FaultTimes } from "./fault-times.ts";

const OPENED = 0;
const LAUNCH = 1;
const RAN = 2;
const BEAT = 3;
const TOLD = 4;
const WORDS_32 = 8;

const RUNNING_MICROS = 0;
const SENT = 1;
const ON_DEMAND = 2;
const IN_BACKGROUND = 3;
const ZERO = 4;
const WORDS_64 = 8;

/** Shared memory of one instant restore: what the thread that serves pages and main see of each other. */
export class Board {
  readonly memory: SharedArrayBuffer;
  readonly times: FaultTimes;
  readonly #wide: BigInt64Array;
  readonly #words: Int32Array;

  constructor(
    memory: SharedArrayBuffer = new SharedArrayBuffer(WORDS_64 * 8 + WORDS_32 * 4 + FaultTimes.BYTES),
  ) {
    this.memory = memory;
    this.#wide = new BigInt64Array(memory, 0, WORDS_64);
    this.#words = new Int32Array(memory, WORDS_64 * 8, WORDS_32);
    this.times = new FaultTimes(memory, WORDS_64 * 8 + WORDS_32 * 4);
  }

  /** The destination has accepted all that stands before its devices. */
  get opened(): boolean {
    return Atomics.load(this.#words, OPENED) === 1;
  }

  setOpened(): void {
    Atomics.store(this.#words, OPENED, 1);
  }

  /** The image says that its guest was let run, so that it may be. */
  get mayLaunch(): boolean {
    return Atomics.load(this.#words, LAUNCH) === 1;
  }

  allowLaunch(): void {
    Atomics.store(this.#words, LAUNCH, 1);
  }

  /** The word to run the guest is on its way, so that it may run, whatever is heard of it. */
  get told(): boolean {
    return Atomics.load(this.#words, TOLD) === 1;
  }

  setTold(): void {
    Atomics.store(this.#words, TOLD, 1);
  }

  /** The destination has all devices and got the word to run the guest. */
  get ran(): boolean {
    return Atomics.load(this.#words, RAN) === 1;
  }

  /** @param micros since the first byte */
  setRan(micros: number): void {
    Atomics.store(this.#wide, RUNNING_MICROS, BigInt(Math.round(micros)));
    Atomics.store(this.#words, RAN, 1);
  }

  get runningMs(): number {
    return Number(Atomics.load(this.#wide, RUNNING_MICROS)) / 1000;
  }

  /** Changes as long as the thread that serves pages lives. */
  get beat(): number {
    return Atomics.load(this.#words, BEAT);
  }

  addBeat(): void {
    Atomics.add(this.#words, BEAT, 1);
  }

  /** Pages of the image that the destination has. */
  get sent(): number {
    return Number(Atomics.load(this.#wide, SENT));
  }

  set sent(pages: number) {
    Atomics.store(this.#wide, SENT, BigInt(pages));
  }

  get onDemand(): number {
    return Number(Atomics.load(this.#wide, ON_DEMAND));
  }

  addOnDemand(pages: number): void {
    Atomics.add(this.#wide, ON_DEMAND, BigInt(pages));
  }

  get inBackground(): number {
    return Number(Atomics.load(this.#wide, IN_BACKGROUND));
  }

  addInBackground(pages: number): void {
    Atomics.add(this.#wide, IN_BACKGROUND, BigInt(pages));
  }

  get zero(): number {
    return Number(Atomics.load(this.#wide, ZERO));
  }

  addZero(pages: number): void {
    Atomics.add(this.#wide, ZERO, BigInt(pages));
  }
}
