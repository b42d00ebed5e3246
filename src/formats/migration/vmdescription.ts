import { Buffer } from "node:buffer";

/** What is wanted of `{"page_size": 4096, "devices": [{"name": …}, …]}`; QEMU 10 puts a "configuration" before it. */
export interface Description {
  readonly pageSize: number;
  readonly devices: readonly string[];
}

/** QEMU nests a struct's fields some ten levels deep. */
const DEPTH_LIMIT = 64;
/** Section names have at most 255 bytes; an escaped one is not much longer. */
export const NAME_LIMIT = 1024;
const NUMBER_LIMIT = 32;
/** A machine with this many devices does not exist. */
export const DEVICE_LIMIT = 16384;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const WORD = /^(-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?|true|false|null)$/;

/** What may come next: `first` behind an opening bracket, where the closing one may come too. */
type Expecting = "value" | "first value" | "first key" | "key" | "colon" | "comma" | "nothing";

/**
 * Reads a vmdescription byte by byte and keeps only what is wanted of it: the text may be several MiB long, and a
 * hostile peer's could be made to take a hundred times its length once parsed.
 */
export class DescriptionScanner {
  #expecting: Expecting = "value";
  readonly #objects = new Uint8Array(DEPTH_LIMIT);
  #depth = 0;
  #failed = false;
  /** The string or word being read: its bytes as far as they are kept, null between tokens. */
  #token: "string" | "word" | null = null;
  #escaped = false;
  readonly #text = Buffer.alloc(NAME_LIMIT);
  #length = 0;
  /** The last key met at depth 1 and 3. */
  readonly #keys: (string | undefined)[] = [];
  #pageSize: number | null = null;
  #devices: string[] | null = null;
  /** Name of the device whose object is open. */
  #name: string | null = null;

  /** Begins with another text. In place, because a stream may be full of what looks like a beginning. */
  restart(): void {
    this.#expecting = "value";
    this.#depth = 0;
    this.#failed = false;
    this.#token = null;
    this.#escaped = false;
    this.#keys.length = 0;
    this.#pageSize = null;
    this.#devices = null;
    this.#name = null;
  }

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && !this.#failed; at++) {
      if (this.#token === "string" && !this.#escaped) at = this.#keepPlain(bytes, at);
      if (at < bytes.length) this.#take(bytes[at] as number);
    }
  }

  /** null when the text was no JSON to its end, or lacks what is wanted. */
  finish(): Description | null {
    if (this.#failed || this.#expecting !== "nothing" || this.#pageSize === null || this.#devices === null) {
      return null;
    }
    return { pageSize: this.#pageSize, devices: this.#devices };
  }

  #take(byte: number): void {
    if (this.#token === "string") {
      if (byte === QUOTE && !this.#escaped) this.#endString();
      else this.#keep(byte);
      this.#escaped = byte === BACKSLASH && !this.#escaped;
      return;
    }
    if (this.#token === "word") {
      if (!isPunctuation(byte)) {
        this.#keep(byte);
        return;
      }
      this.#endWord();
    }
    if (byte !== 0x20) this.#begin(byte);
  }

  #begin(byte: number): void {
    const at = this.#expecting;
    if (byte === QUOTE) {
      this.#require(at !== "colon" && at !== "comma" && at !== "nothing");
      this.#token = "string";
      this.#length = 0;
    } else if (byte === 0x7b || byte === 0x5b) this.#open(byte === 0x7b);
    else if (byte === 0x7d) this.#close(true, at === "first key" || at === "comma");
    else if (byte === 0x5d) this.#close(false, at === "first value" || at === "comma");
    else if (byte === 0x3a) {
      this.#require(at === "colon");
      this.#expecting = "value";
    } else if (byte === 0x2c) {
      this.#require(at === "comma");
      this.#expecting = this.#inObject ? "key" : "value";
    } else {
      this.#require(at === "value" || at === "first value");
      this.#token = "word";
      this.#length = 0;
      this.#keep(byte);
    }
  }

  #open(object: boolean): void {
    this.#require(
      (this.#expecting === "value" || this.#expecting === "first value") && this.#depth < DEPTH_LIMIT,
    );
    if (this.#failed) return;
    if (this.#depth === 1 && this.#keys[1] === "devices") this.#devices = object ? null : [];
    if (this.#inDevices && this.#depth === 2) {
      this.#require(object);
      this.#name = null;
    }
    this.#objects[this.#depth++] = object ? 1 : 0;
    this.#expecting = object ? "first key" : "first value";
  }

  #close(object: boolean, allowed: boolean): void {
    this.#require(allowed && this.#depth > 0 && this.#inObject === object);
    if (this.#failed) return;
    this.#depth--;
    if (this.#inDevices && this.#depth === 2) {
      this.#require(this.#name !== null && (this.#devices?.length ?? 0) < DEVICE_LIMIT);
      if (this.#name !== null) this.#devices?.push(this.#name);
    }
    this.#endValue();
  }

  #endString(): void {
    this.#token = null;
    if (this.#expecting === "key" || this.#expecting === "first key") {
      this.#keys[this.#depth] = this.#depth === 1 || this.#depth === 3 ? this.#string() : undefined;
      this.#expecting = "colon";
      return;
    }
    this.#require(!(this.#inDevices && this.#depth === 2));
    if (this.#inDevices && this.#depth === 3 && this.#keys[3] === "name") this.#name = this.#string();
    this.#endValue();
  }

  #endWord(): void {
    this.#token = null;
    const word = this.#text.toString("latin1", 0, this.#length);
    this.#require(this.#length <= NUMBER_LIMIT && WORD.test(word) && !(this.#inDevices && this.#depth === 2));
    if (this.#depth === 1 && this.#keys[1] === "page_size" && /^\d/.test(word)) this.#pageSize = Number(word);
    this.#endValue();
  }

  #endValue(): void {
    this.#expecting = this.#depth === 0 ? "nothing" : "comma";
  }

  /** Strings are checked only as far as they are wanted: what QEMU escapes in others is its own business. */
  #string(): string {
    if (this.#length > NAME_LIMIT) return "";
    try {
      return String(JSON.parse(`"${this.#text.toString("utf8", 0, this.#length)}"`));
    } catch {
      this.#failed = true;
      return "";
    }
  }

  /** Most of the text is inside of strings, and QEMU and its VM are waited for meanwhile. @returns where the plain bytes end */
  #keepPlain(bytes: Uint8Array, from: number): number {
    let end = from;
    while (end < bytes.length && bytes[end] !== QUOTE && bytes[end] !== BACKSLASH) end++;
    if (this.#length < NAME_LIMIT) {
      this.#text.set(bytes.subarray(from, Math.min(end, from + NAME_LIMIT - this.#length)), this.#length);
    }
    this.#length += end - from;
    return end;
  }

  #keep(byte: number): void {
    if (this.#length < NAME_LIMIT) this.#text[this.#length] = byte;
    this.#length++;
  }

  #require(condition: boolean): void {
    if (!condition) this.#failed = true;
  }

  get #inObject(): boolean {
    return this.#objects[this.#depth - 1] === 1;
  }

  /** Within the value of the outermost object's "devices", when that is an array. */
  get #inDevices(): boolean {
    return this.#depth >= 2 && this.#keys[1] === "devices" && this.#devices !== null;
  }
}

function isPunctuation(byte: number): boolean {
  return byte === 0x20 || byte === 0x2c || byte === 0x3a || byte === 0x5d || byte === 0x7d || byte === QUOTE;
}
