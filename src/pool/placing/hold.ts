/** Reasons to read no further for now: a connection goes on when the last of them is gone. */
export class Hold {
  readonly #onFree: () => void;
  readonly #onError: (error: unknown) => void;
  #reasons = 0;

  constructor(onFree: () => void, onError: (error: unknown) => void) {
    this.#onFree = onFree;
    this.#onError = onError;
  }

  get held(): boolean {
    return this.#reasons > 0;
  }

  /** Holds the connection until this work is done; when it fails, for good. */
  until(work: Promise<void>): void {
    this.#reasons++;
    work.then(() => {
      this.#reasons--;
      if (this.#reasons === 0) this.#onFree();
    }, this.#onError);
  }
}
