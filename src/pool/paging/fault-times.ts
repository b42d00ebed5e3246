/** Steps of a power of two: a time is told to within 6 %. */
const STEPS = 16;
/** Up to 2^32 microseconds. */
const BUCKETS: number = 33 * STEPS;
const LONGEST = BUCKETS;

/** How long faults took, in shared memory: one thread adds, another one asks. Times are in microseconds. */
export class FaultTimes {
  static readonly BYTES: number = (BUCKETS + 1) * 4;
  readonly #words: Uint32Array;

  constructor(memory: SharedArrayBuffer, offset: number) {
    this.#words = new Uint32Array(memory, offset, BUCKETS + 1);
  }

  add(micros: number): void {
    const bucket = bucketOf(micros);
    this.#words[bucket] = (this.#words[bucket] as number) + 1;
    if (micros > (this.#words[LONGEST] as number)) this.#words[LONGEST] = Math.ceil(micros);
  }

  get count(): number {
    return this.#words.subarray(0, BUCKETS).reduce((sum, one) => sum + one, 0);
  }

  get longest(): number {
    return this.#words[LONGEST] as number;
  }

  /** The time that this part of the faults (0 to 1) did not exceed; 0 where there was none. */
  quantile(part: number): number {
    const wanted = Math.ceil(this.count * part);
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      seen += this.#words[bucket] as number;
      if (seen >= wanted && seen > 0) return Math.min(upperEnd(bucket), this.longest);
    }
    return 0;
  }
}

function bucketOf(micros: number): number {
  const at = Math.max(1, micros);
  const power = Math.floor(Math.log2(at));
  const step = Math.floor((at / 2 ** power - 1) * STEPS);
  return Math.min(BUCKETS - 1, power * STEPS + step);
}

function upperEnd(bucket: number): number {
  const power = Math.floor(bucket / STEPS);
  return Math.round(2 ** power * (1 + ((bucket % STEPS) + 1) / STEPS));
}
