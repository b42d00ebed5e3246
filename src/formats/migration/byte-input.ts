import { Buffer } from "node:buffer";

/** The biggest run of bytes a walker asks for at once is a multifd packet header (1344 bytes). */
const CARRY_BYTES = 2048;
const NOTHING = Buffer.alloc(0);

/** Takes bytes that were read or skipped; they are only lent for the call. */
export type Keep = (bytes: Uint8Array) => void;

/** A parser written top to bottom: it yields whenever it needs bytes that have not arrived yet. */
export type Steps<T = void> = Generator<void, T, void>;

/**
 * Turns chunks cut anywhere into runs of contiguous bytes. Bytes are copied only when a run straddles
 * chunks; everything else is read in place, and skipped bytes are never touched.
 */
export class ByteInput {
  #chunk: Buffer = NOTHING;
  #at = 0;
  readonly #carry = Buffer.alloc(CARRY_BYTES);
  #carried = 0;
  #run: Buffer = NOTHING;
  #runAt = 0;
  #fed = 0;
  #wanted = 0;
  #keep: Keep | null = null;

  /** Offset in the stream of the next unread byte. */
  get offset(): number {
    return this.#fed - (this.#chunk.length - this.#at) - this.#carried;
  }

  /** Bytes seen so far, read or not: what is fed next stands here. */
  get fed(): number {
    return this.#fed;
  }

  /** How many bytes more the reader waits for, after it found that they are not here. */
  get wanted(): number {
    return this.#wanted;
  }

  /** From here on all that is consumed, skipped or drained is handed to `keep` as well; null: no more. */
  keepWith(keep: Keep | null): void {
    this.#keep = keep;
  }

  feed(chunk: Uint8Array): void {
    this.#chunk = Buffer.isBuffer(chunk) ? chunk : Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
    this.#at = 0;
    this.#fed += chunk.length;
  }

  /** Forgets the chunk, which belongs to the caller again; what is left of it must have been read or carried. */
  release(): void {
    this.#chunk = NOTHING;
    this.#at = 0;
    this.#run = NOTHING;
  }

  /** True when the next `count` (at most 2048) bytes are here; u8, u32, text and copy then read from them. */
  ready(count: number): boolean {
    if (this.#carried === 0 && this.#chunk.length - this.#at >= count) {
      this.#run = this.#chunk;
      this.#runAt = this.#at;
      return true;
    }
    if (this.#carried < count) {
      const taken = Math.min(count - this.#carried, this.#chunk.length - this.#at);
      this.#chunk.copy(this.#carry, this.#carried, this.#at, this.#at + taken);
      this.#carried += taken;
      this.#at += taken;
    }
    this.#run = this.#carry;
    this.#runAt = 0;
    this.#wanted = Math.max(0, count - this.#carried);
    return this.#wanted === 0;
  }

  u8(at: number): number {
    return this.#run.readUInt8(this.#runAt + at);
  }

  u16(at: number): number {
    return this.#run.readUInt16BE(this.#runAt + at);
  }

  u32(at: number): number {
    return this.#run.readUInt32BE(this.#runAt + at);
  }

  /** A be64 as a number: exact up to 2^53, which is far beyond any length or address that passes a check. */
  u64(at: number): number {
    return this.u32(at) * 2 ** 32 + this.u32(at + 4);
  }

  text(at: number, length: number): string {
    return this.#run.toString("latin1", this.#runAt + at, this.#runAt + at + length);
  }

  hex(at: number, length: number): string {
    return this.#run.toString("hex", this.#runAt + at, this.#runAt + at + length);
  }

  /** Leaves out a stretch: forgets all unread bytes, and what is fed next stands at `offset` of the stream. */
  jumpTo(offset: number): void {
    this.release();
    this.#carried = 0;
    this.#fed = offset;
  }

  /** Moves on by `count` bytes that ready() has confirmed. */
  consume(count: number): void {
    this.#keep?.(this.#run.subarray(this.#runAt, this.#runAt + count));
    if (this.#carried === 0) {
      this.#at += count;
      return;
    }
    this.#carried -= count;
    if (this.#carried <= this.#at) {
      // All that is left of it is in the chunk too: read in place again, or a walk of single bytes would copy each twice.
      this.#at -= this.#carried;
      this.#carried = 0;
    } else this.#carry.copyWithin(0, count, count + this.#carried);
  }

  /** Passes over up to `count` bytes without looking at them and says how many were there. */
  skip(count: number): number {
    if (this.#carried > 0) {
      const carried = Math.min(count, this.#carried);
      this.consume(carried);
      if (carried === count) return count;
      return carried + this.skip(count - carried);
    }
    const skipped = Math.min(count, this.#chunk.length - this.#at);
    this.#keep?.(this.#chunk.subarray(this.#at, this.#at + skipped));
    this.#at += skipped;
    this.#wanted = count - skipped;
    return skipped;
  }

  /** Hands every unread byte to `take`, with the stream offset of the first one of each piece. */
  drain(take: (bytes: Buffer, offset: number) => void): void {
    const give = (bytes: Buffer): void => {
      this.#keep?.(bytes);
      take(bytes, this.offset);
    };
    if (this.#carried > 0) give(this.#carry.subarray(0, this.#carried));
    this.#carried = 0;
    if (this.#at < this.#chunk.length) give(this.#chunk.subarray(this.#at));
    this.#at = this.#chunk.length;
  }
}

/** Runs a parser over the chunks of an input, and stays failed once it has failed. */
export class ResumableParser {
  readonly #input: ByteInput;
  readonly #steps: Steps<unknown>;
  readonly #held: () => boolean;
  #failure: { readonly error: unknown } | null = null;
  #done = false;

  /** @param held whether the parser yields although it has bytes, because what they are for must wait */
  constructor(input: ByteInput, steps: Steps<unknown>, held: () => boolean = () => false) {
    this.#input = input;
    this.#steps = steps;
    this.#held = held;
  }

  /** While the parser is held afterwards, the chunk must stay as it is, and `resume` comes before the next one. */
  push(chunk: Uint8Array): void {
    this.rethrow();
    this.#input.feed(chunk);
    this.resume();
  }

  /** Goes on with the rest of the last chunk when the parser is held no longer. */
  resume(): void {
    this.rethrow();
    try {
      this.#done = this.#steps.next().done ?? false;
    } catch (error) {
      this.#failure = { error };
      throw error;
    } finally {
      if (!this.#held()) this.#input.release();
    }
  }

  /** The parser has read all that it wanted. */
  get done(): boolean {
    return this.#done;
  }

  rethrow(): void {
    if (this.#failure !== null) throw this.#failure.error;
  }
}

/** Passes over `count` bytes, however many chunks that takes. */
export function* skipBytes(input: ByteInput, count: number): Steps {
  for (let left = count - input.skip(count); left > 0; left -= input.skip(left)) yield;
}
