import { type ErrorDetails, MultifdError } from "../../errors.ts";

/** A checksum or a word of bits as errors show it. */
export function hex32(value: number): string {
  return `0x${value.toString(16).padStart(8, "0")}`;
}

/**
 * IMAGE_DAMAGED in the one form that all of this folder uses.
 *
 * @param where what was read and where it lies, e.g. `index byte 40`
 * @param problem what is wrong there, with the value found
 */
export function damaged(
  where: string,
  problem: string,
  details: ErrorDetails = {},
  cause?: unknown,
): MultifdError {
  const message = `the image is damaged: ${where}: ${problem}; use another copy of the image`;
  return new MultifdError("IMAGE_DAMAGED", message, { where, ...details }, cause);
}
