import type { Ring, SubmitSlot } from "../../src/io/write-ring.ts";

/**
 * The ring that anybody would write first: it pauses reading when no slot is free, and asks for the next one when
 * reading goes on. Node has asked for the next buffer by then, and gets the slot that is being written.
 */
export class NaiveRing implements Ring {
  readonly #slots: readonly Uint8Array[];
  readonly #busy = new Set<Uint8Array>();
  readonly #submit: SubmitSlot;
  readonly #onSpare: () => void;
  readonly #writing: Promise<void>[] = [];
  #current: Uint8Array;
  #filled = 0;

  constructor(slots: readonly Uint8Array[], submit: SubmitSlot, onSpare: () => void) {
    this.#slots = slots;
    this.#current = slots[0] as Uint8Array;
    this.#submit = submit;
    this.#onSpare = onSpare;
  }

  space(): Uint8Array {
    return this.#current.subarray(this.#filled);
  }

  latest(bytes: number): Uint8Array {
    return this.#current.subarray(this.#filled, this.#filled + bytes);
  }

  advance(bytes: number): boolean {
    this.#filled += bytes;
    if (this.#filled < this.#current.byteLength) return true;
    const full = this.#current;
    this.#busy.add(full);
    this.#writing.push(
      this.#submit(full, this.#filled).then(() => {
        this.#busy.delete(full);
        this.#onSpare();
      }),
    );
    this.#filled = 0;
    const free = this.#slots.find((slot) => !this.#busy.has(slot));
    this.#current = free ?? (this.#slots[0] as Uint8Array);
    return free !== undefined;
  }

  async finish(): Promise<void> {
    if (this.#filled > 0) this.#writing.push(this.#submit(this.#current, this.#filled));
    await Promise.all(this.#writing);
  }
}
