/**
 * CRC-32 of joined pieces from the CRC-32 of each: the CRC of A followed by B is that of A, multiplied by x^(8 × length
 * of B) modulo the CRC's polynomial, plus that of B (Mark Adler's crc32_combine in zlib rests on the same identity). Bits are
 * reflected as in zlib: the highest one stands for x^0.
 */

const POLYNOMIAL = 0xedb88320;
const ONE = 0x80000000;
const X = 0x40000000;

/** @param length bytes of the second piece */
export function combineCrc32(first: number, second: number, length: number): number {
  return (multiply(powerOfX(8 * length), first) ^ second) >>> 0;
}

/** Joins many pieces of one length: what is alike for all of them is worked out once. */
export class CrcJoiner {
  /** For each byte of a CRC, from the lowest, and each value of it, what it becomes when a piece is appended. */
  readonly #table: Int32Array;

  /** @param length bytes of each piece */
  constructor(length: number) {
    const factor = powerOfX(8 * length);
    this.#table = Int32Array.from({ length: 4 * 256 }, (_, n) =>
      multiply(factor, ((n & 255) << (8 * (n >> 8))) >>> 0),
    );
  }

  /**
   * The CRC of the pieces from `first` to before `end` that have a bit, one behind the other. Its numbers have a sign until the
   * last step: others are objects to V8 until it has optimised this, and a save ends while it does.
   * @param crcs of all pieces
   * @param bits the lowest of each byte first
   */
  join(crcs: Int32Array, bits: Uint8Array, first: number, end: number): number {
    const table = this.#table;
    let crc = 0;
    for (let n = first; n < end; n++) {
      if ((((bits[n >> 3] as number) >> (n & 7)) & 1) === 0) continue;
      crc =
        (table[crc & 255] as number) ^
        (table[256 + ((crc >>> 8) & 255)] as number) ^
        (table[512 + ((crc >>> 16) & 255)] as number) ^
        (table[768 + (crc >>> 24)] as number) ^
        (crcs[n] as number);
    }
    return crc >>> 0;
  }
}

function powerOfX(exponent: number): number {
  let result = ONE;
  let power = X;
  for (let left = exponent; left > 0; left = Math.floor(left / 2)) {
    if (left % 2 === 1) result = multiply(power, result);
    power = multiply(power, power);
  }
  return result;
}

/** The product of two polynomials modulo the CRC's. */
function multiply(a: number, b: number): number {
  let product = 0;
  let term = b;
  for (let bit = ONE; bit !== 0; bit >>>= 1) {
    if ((a & bit) !== 0) product ^= term;
    term = (term & 1) === 0 ? term >>> 1 : (term >>> 1) ^ POLYNOMIAL;
  }
  return product >>> 0;
}
