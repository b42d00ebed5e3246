import { Buffer } from "node:buffer";
import type { Random } from "../support/random.ts";

/** Values at which parsers go wrong. */
const EDGES: readonly number[] = [
  ...[0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 63, 64, 127, 128, 129, 255, 256, 257, 4095, 4096, 4097, 65535, 65536],
  ...[2 ** 20, 2 ** 21, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32 - 4096],
];

/** One to six changes of the kinds that fuzzers make: flips, edges in length fields, splices, cuts and repeats. */
export function mutate(random: Random, original: Buffer, others: readonly Buffer[]): Buffer {
  let bytes: Buffer = Buffer.from(original);
  for (let left = 1 + random.integer(6); left > 0; left--) bytes = change(random, bytes, others);
  return bytes;
}

function change(random: Random, bytes: Buffer, others: readonly Buffer[]): Buffer {
  if (bytes.length < 9) return Buffer.concat([bytes, slice(random, random.pick(others))]);
  const at = random.integer(bytes.length - 8);
  switch (random.integer(9)) {
    case 0:
      bytes[at] = (bytes[at] as number) ^ (1 << random.integer(8));
      return bytes;
    case 1:
      bytes[at] = random.integer(256);
      return bytes;
    case 2:
      bytes.writeUInt32BE(random.pick(EDGES), at);
      return bytes;
    case 3:
      bytes.writeBigUInt64BE(BigInt(random.pick(EDGES)) << BigInt(random.integer(33)), at);
      return bytes;
    case 4:
      bytes.writeUInt32BE((bytes.readUInt32BE(at) + random.integer(17) - 8) >>> 0, at);
      return bytes;
    case 5:
      return Buffer.concat([bytes.subarray(0, at), slice(random, random.pick(others)), bytes.subarray(at)]);
    case 6:
      return Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1 + random.integer(64))]);
    case 7:
      return Buffer.from(bytes.subarray(0, at + 1));
    default: {
      const piece = bytes.subarray(at, at + 1 + random.integer(64));
      return Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]);
    }
  }
}

function slice(random: Random, from: Buffer): Buffer {
  const at = random.integer(from.length);
  return from.subarray(at, at + 1 + random.integer(256));
}

/** The same bytes in pieces of any lengths. */
export function* cut(random: Random, bytes: Buffer): Generator<Buffer, void, undefined> {
  const most = random.pick([1, 7, 64, 1400, 65536]);
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random.integer(most);
    yield bytes.subarray(at, at + length);
    at += length;
  }
}
