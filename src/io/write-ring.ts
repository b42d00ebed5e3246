/** Takes over a full slot; resolves when the slot may be reused. `length` may be below the slot's size. */
export type SubmitSlot = (slot: Uint8Array, length: number) => Promise<void>;

/** Memory between a socket and the disk. */
export interface Ring {
  /** Where the next bytes go; never empty. */
  space(): Uint8Array;
  /** The last `bytes` that were read into `space()`. */
  latest(bytes: number): Uint8Array;
  /** Takes note of bytes read into `space()`. False: stop reading until told to go on. */
  advance(bytes: number): boolean;
  /** Writes what is left and waits for every write. Nothing may be read meanwhile. */
  finish(): Promise<void>;
}

export type RingMaker = (
  slots: readonly Uint8Array[],
  submit: SubmitSlot,
  onSpare: () => void,
  onError: (error: unknown) => void,
) => Ring;

/**
 * The slots between one socket and the disk: one is being filled while others are being written.
 *
 * The invariant that keeps data whole: the socket may only be read while a free slot exists BEYOND the
 * current one. Node asks for the next buffer right after each read callback and never again when a paused
 * socket goes on; a ring that pauses with no slot installed would go on reading into memory that is still
 * on its way to disk, and nothing would notice. So the next slot is installed first, and reading pauses
 * when it was the last one.
 */
export class WriteRing implements Ring {
  readonly #free: Uint8Array[];
  readonly #submit: SubmitSlot;
  readonly #onSpare: () => void;
  readonly #onError: (error: unknown) => void;
  readonly #writing = new Set<Promise<void>>();
  #current: Uint8Array;
  #filled = 0;

  /**
   * @param slots at least 2, all of one size
   * @param onSpare called when reading may go on after `advance` answered false
   * @param onError called when a write failed
   */
  constructor(
    slots: readonly Uint8Array[],
    submit: SubmitSlot,
    onSpare: () => void,
    onError: (error: unknown) => void,
  ) {
    const [first, ...others] = slots;
    if (first === undefined || others.length === 0)
      throw new RangeError("a write ring needs two slots or more");
    this.#current = first;
    this.#free = others;
    this.#submit = submit;
    this.#onSpare = onSpare;
    this.#onError = onError;
  }

  space(): Uint8Array {
    return this.#current.subarray(this.#filled);
  }

  /** The slot that is being filled, all of it. */
  get current(): Uint8Array {
    return this.#current;
  }

  latest(bytes: number): Uint8Array {
    return this.#current.subarray(this.#filled, this.#filled + bytes);
  }

  advance(bytes: number): boolean {
    this.#filled += bytes;
    return this.#filled < this.#current.byteLength ? true : this.launch();
  }

  /** Writes the current slot though it is not full. False as for `advance`. */
  launch(): boolean {
    if (this.#filled > 0) {
      this.#launch(this.#current, this.#filled);
      this.#current = this.#free.pop() as Uint8Array;
      this.#filled = 0;
    }
    return this.#free.length > 0;
  }

  async finish(): Promise<void> {
    this.launch();
    await Promise.all(this.#writing);
  }

  #launch(slot: Uint8Array, length: number): void {
    const writing = this.#submit(slot, length).then(
      () => {
        this.#writing.delete(writing);
        this.#free.push(slot);
        if (this.#free.length === 1) this.#onSpare();
      },
      (error: unknown) => {
        this.#onError(error);
        throw error;
      },
    );
    // Kept until finish(), which must see the failure too; until then it is no unhandled rejection.
    writing.catch(() => undefined);
    this.#writing.add(writing);
  }
}
