/** What is made when it is first wanted, and once. */
export class Lazy<T> {
  readonly #make: () => T;
  #made: { readonly value: T } | null = null;

  constructor(make: () => T) {
    this.#make = make;
  }

  get(): T {
    this.#made ??= { value: this.#make() };
    return this.#made.value;
  }

  /** Null: nobody wanted it. */
  get got(): T | null {
    return this.#made?.value ?? null;
  }
}
