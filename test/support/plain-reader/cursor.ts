import type { Buffer } from "node:buffer";

/** Reads big-endian fields one behind the other. Every reader of this folder throws plain Errors that say what and where. */
export class Cursor {
  readonly bytes: Buffer;
  /** Offset of the next unread byte. */
  at: number;

  constructor(bytes: Buffer, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  /** The next byte, which stays unread; -1 behind the last one. */
  get next(): number {
    return this.bytes[this.at] ?? -1;
  }

  take(length: number): Buffer {
    if (length > this.left)
      throw new Error(`${length} bytes wanted at ${this.at}, but ${this.left} are left`);
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }

  u8(): number {
    return this.take(1).readUInt8(0);
  }

  u16(): number {
    return this.take(2).readUInt16BE(0);
  }

  u32(): number {
    return this.take(4).readUInt32BE(0);
  }

  u64(): number {
    const value = this.take(8).readBigUInt64BE(0);
    demand(value <= 2n ** 53n - 1n, `the u64 at ${this.at - 8} is ${value}`);
    return Number(value);
  }

  text(length: number): string {
    return this.take(length).toString("latin1");
  }

  /** A text behind its length in one byte. */
  counted(): string {
    return this.text(this.u8());
  }
}

export function demand(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}

export function isZero(bytes: Buffer): boolean {
  return bytes.every((byte) => byte === 0);
}
