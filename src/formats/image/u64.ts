import { damaged } from "./damage.ts";

const HIGH_WORD = 2 ** 32;
/** The high word of 2^53 - 1. */
export const LARGEST_HIGH: number = Math.floor(Number.MAX_SAFE_INTEGER / HIGH_WORD);

/** Size of a u64 on disk. */
export const U64_BYTES = 8;

/** The latest time, in milliseconds since the epoch, that JavaScript has a name for (ECMA-262, "Time Values"). */
const LAST_MS = 8.64e15;

/**
 * Reads a big-endian u64 as a number. No file is larger than 2^53 - 1 bytes, so a larger value is damage.
 *
 * @throws MultifdError IMAGE_DAMAGED
 */
export function readU64(view: DataView, offset: number, what: string): number {
  const high = view.getUint32(offset);
  if (high > LARGEST_HIGH) {
    const value = view.getBigUint64(offset);
    throw damaged(`${what} byte ${offset}`, `the value ${value} is larger than any file`, { what, offset });
  }
  return high * HIGH_WORD + view.getUint32(offset + 4);
}

/** Milliseconds since 1970. Throws IMAGE_DAMAGED on more than a date can be. */
export function readTime(view: DataView, offset: number, what: string): number {
  const ms = readU64(view, offset, what);
  if (ms <= LAST_MS) return ms;
  throw damaged(`${what} byte ${offset}`, `${ms} milliseconds since 1970 are no time`, { what, offset });
}

export function writeU64(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, Math.floor(value / HIGH_WORD));
  view.setUint32(offset + 4, value % HIGH_WORD);
}

/** A view with the bounds of `bytes`. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
