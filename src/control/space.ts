import { MultifdError } from "../errors.ts";
import { freeBytes } from "../io/image-target/durability.ts";
import type { Target } from "../io/image-target/target.ts";
import type { Log, SaveOptions } from "./options.ts";

type SpaceOptions = Pick<SaveOptions, "image" | "replace" | "expectBytes" | "force">;

/** What the room at the target is known to be good for, before and while a save runs. */
export class Space {
  readonly #image: string;
  readonly #log: Log;
  /** Bytes that the target had room for before the first one was written. */
  readonly #room: number;
  #told = false;

  /** Throws NO_SPACE when the target has less room than --expect-bytes says it needs. */
  constructor(target: Target, options: SpaceOptions, log: Log) {
    this.#image = options.image;
    this.#log = log;
    const givenUp = options.replace === true ? target.earlierBytes : 0;
    this.#room = target.capacity ?? freeBytes(target.fd) + target.heldBytes + givenUp;
    this.#check(options);
  }

  /** Warns once when all of the VM's RAM would not fit: zero pages are not stored, so that it may fit all the same. */
  noteRam(ramBytes: number): void {
    if (this.#told || ramBytes <= this.#room) return;
    this.#told = true;
    const text = `the VM has ${ramBytes} bytes of RAM and ${this.#image} has room for ${this.#room}: going on, as zero pages take no room`;
    this.#log.warn({ room: this.#room, ramBytes }, text);
  }

  #check({ expectBytes: needed, force }: SpaceOptions): void {
    const room = this.#room;
    if (needed === undefined || room >= needed) return;
    const text = `${this.#image} has room for ${room} bytes and ${needed} are expected: free some space first`;
    if (force !== true) throw new MultifdError("NO_SPACE", `${text}, or use --force`, { room, needed });
    this.#log.warn({ room, needed }, `${text}; going on because of --force`);
  }
}
