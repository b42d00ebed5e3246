import { Buffer } from "node:buffer";
import { DescriptionReader } from "./description-reader.ts";

/** A vmdescription is about 10 KiB to 1 MiB; a longer one than this is not recognised. */
export const VMDESCRIPTION_LIMIT: number = 16 * 1024 * 1024;
const BRACE = 0x7b;
const FOOTER = 0x7e;
/** EOF byte, VMDESCRIPTION type, u32 length: what stands before the JSON. */
const PREFIX_BYTES = 6;
/**
 * The true prefix may begin inside the length of a false one (the footer of section 6 ends in 00 06); then its
 * brace comes at most 3 bytes behind the false one, where QEMU's own text has `{"p` or `{"c`.
 */
const LAST_FALSE_START = 3;
/** A byte that stands for itself, and is below 0x20. */
const CONTROL = /[^ -\xff]/g;

/** As much is looked at in one go: strings of a MiB would be memory that V8 gives back late. */
const WINDOW = 128 * 1024;

/** The end of the main stream, as found at its very last byte. */
export interface Tail {
  /** Offset of the EOF byte. */
  readonly eofByte: number;
  readonly pageSize: number;
  readonly devices: readonly string[];
}

/**
 * Finds `00 06 be32 length JSON` that ends exactly at the stream's end, in a stretch that cannot be parsed
 * (device sections have no length) and need not be held. Any `00 06 length {` opens a candidate. QEMU's JSON
 * writer puts out one line and escapes control characters, so a false candidate dies at its first byte below
 * 0x20 or when more than its length arrives; and since a candidate begins with such a byte, none can begin
 * inside the text of another one that lives.
 */
export class TailFinder {
  /** The bytes before the piece at hand; 0xff begins no candidate. */
  #recent: Buffer = Buffer.alloc(PREFIX_BYTES, 0xff);
  readonly #description = new DescriptionReader();
  /** EOF byte of the living candidate. */
  #eofByte: number | null = null;

  /** Takes the next piece of the stream, which begins at `offset`. */
  scan(bytes: Buffer, offset: number): void {
    for (let at = 0; at < bytes.length; at += WINDOW)
      this.#scanWindow(bytes.subarray(at, at + WINDOW), offset + at);
  }

  #scanWindow(bytes: Buffer, offset: number): void {
    // The same bytes, for what strings are quick at; most pieces have no candidate.
    let text = "";
    for (let at = 0; at < bytes.length; ) {
      if (this.#eofByte === null) at = this.#search(bytes, at, offset);
      else {
        if (text === "") text = bytes.toString("latin1");
        at = this.#follow(bytes, text, at);
      }
    }
    const tail = bytes.subarray(-PREFIX_BYTES);
    this.#recent = Buffer.concat([this.#recent.subarray(tail.length), tail]);
  }

  /** To be called at the stream's end; null when no vmdescription ended there. */
  finish(): Tail | null {
    if (this.#eofByte === null) return null;
    const description = this.#description.finish();
    return description === null ? null : { eofByte: this.#eofByte, ...description };
  }

  /** True when the last bytes are a section's footer and an EOF byte: what suppress-vmdesc leaves. */
  get endsWithBareEof(): boolean {
    return this.#recent[0] === FOOTER && this.#recent[PREFIX_BYTES - 1] === 0;
  }

  #search(bytes: Buffer, from: number, offset: number): number {
    const before = (at: number) => (at < 0 ? this.#recent[PREFIX_BYTES + at] : bytes[at]) ?? 0;
    for (let brace = bytes.indexOf(BRACE, from); brace !== -1; brace = bytes.indexOf(BRACE, brace + 1)) {
      const start = brace - PREFIX_BYTES;
      if (before(start) !== 0 || before(start + 1) !== 6) continue;
      const length = [2, 3, 4, 5].reduce((sum, i) => sum * 256 + before(start + i), 0);
      if (length < 2 || length > VMDESCRIPTION_LIMIT) continue;
      this.#eofByte = offset + start;
      this.#description.restart(length);
      return brace;
    }
    return bytes.length;
  }

  #follow(bytes: Buffer, text: string, from: number): number {
    const end = Math.min(bytes.length, from + this.#description.left);
    const at = bodyEnd(text, from, end, this.#description.seen);
    const alive = at === end && end > from;
    if (alive) this.#description.push(bytes.subarray(from, end));
    else this.#eofByte = null;
    return at;
  }
}

/** Where a candidate's text stops to be one. @param seen how much of it lies before `from` */
function bodyEnd(text: string, from: number, end: number, seen: number): number {
  CONTROL.lastIndex = from;
  const stop = CONTROL.test(text) ? Math.min(end, CONTROL.lastIndex - 1) : end;
  for (let index = Math.max(1, seen); index <= LAST_FALSE_START; index++) {
    const at = from + index - seen;
    if (at < stop && text.charCodeAt(at) === BRACE) return at;
  }
  return stop;
}
