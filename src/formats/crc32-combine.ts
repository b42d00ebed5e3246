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
  // For each byte of a CRC, from the lowest, and each value of it, what it becomes when a piece is appended.
  readonly #first: Uint32Array;
  readonly #second: Uint32Array;
  readonly #third: Uint32Array;
  readonly #fourth: Uint32Array;

  /** @param length bytes of each piece */
  constructor(length: number) {
    const factor = powerOfX(8 * length);
    const table = (shift: number): Uint32Array =>
      Uint32Array.from({ length: 256 }, (_, byte) => multiply(factor, (byte << shift) >>> 0));
    this.#first = table(0);
    this.#second = table(8);
    this.#third = table(16);
    this.#fourth = table(24);
  }

  /** The CRC of what `crc` stands for, with a piece appended whose own CRC is `piece`. */
  join(crc: number, piece: number): number {
    const shifted =
      (this.#first[crc & 255] as number) ^
      (this.#second[(crc >>> 8) & 255] as number) ^
      (this.#third[(crc >>> 16) & 255] as number) ^
      (this.#fourth[crc >>> 24] as number);
    return (shifted ^ piece) >>> 0;
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
