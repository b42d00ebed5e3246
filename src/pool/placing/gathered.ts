import { Buffer } from "node:buffer";

const FIRST_BYTES = 4096;

/** Bytes that come in pieces of any size, many of them single ones, and are wanted as one. */
export class Gathered {
  #memory: Buffer = Buffer.alloc(FIRST_BYTES);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** All of them; lent until the next call. */
  get bytes(): Buffer {
    return this.#memory.subarray(0, this.#length);
  }

  /** Takes a copy. */
  put(piece: Uint8Array): void {
    const length = this.#length + piece.length;
    if (length > this.#memory.length) {
      const larger = Buffer.alloc(Math.max(length, 2 * this.#memory.length));
      larger.set(this.bytes);
      this.#memory = larger;
    }
    this.#memory.set(piece, this.#length);
    this.#length = length;
  }

  /** Forgets the first ones. */
  drop(count: number): void {
    this.#memory.copyWithin(0, count, this.#length);
    this.#length -= count;
  }
}
