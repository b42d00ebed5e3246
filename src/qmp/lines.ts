const NEWLINE = 0x0a;

/** Cuts what comes in pieces into lines of UTF-8, and keeps no more than `limit` bytes of one that has not ended. */
export class LineSplitter {
  readonly #limit: number;
  #held = Buffer.alloc(0);
  #heldBytes = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The beginning of the line that has not ended yet, for messages. */
  get unfinished(): string {
    return this.#held.toString("utf8", 0, Math.min(this.#heldBytes, 80));
  }

  /** The lines that `piece` ends, without their newlines. null: a line has grown beyond the limit, and this is of no more use. */
  push(piece: Buffer): string[] | null {
    const lines: string[] = [];
    let from = 0;
    for (let end = piece.indexOf(NEWLINE); end >= 0; end = piece.indexOf(NEWLINE, from)) {
      if (!this.#hold(piece.subarray(from, end))) return null;
      lines.push(this.#held.toString("utf8", 0, this.#heldBytes));
      this.#heldBytes = 0;
      from = end + 1;
    }
    if (this.#heldBytes === 0) this.#held = Buffer.alloc(0); // no use for the room of a long line any more
    return this.#hold(piece.subarray(from)) ? lines : null;
  }

  #hold(bytes: Buffer): boolean {
    const needed = this.#heldBytes + bytes.length;
    if (needed > this.#limit) return false;
    if (needed > this.#held.length) {
      // Doubling: a long line that comes in small pieces is not copied for each of them.
      const larger = Buffer.alloc(Math.max(needed, 2 * this.#held.length));
      this.#held.copy(larger, 0, 0, this.#heldBytes);
      this.#held = larger;
    }
    bytes.copy(this.#held, this.#heldBytes);
    this.#heldBytes = needed;
    return true;
  }
}
