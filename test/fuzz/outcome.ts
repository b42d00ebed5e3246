import type { Buffer } from "node:buffer";
import { MultifdError } from "../../src/errors.ts";
import type { Random } from "../support/random.ts";

/** What a parser made of an input: a value, or its refusal. Anything but a typed refusal is a defect, and thrown. */
export type Outcome<T> = { readonly value: T } | { readonly refused: string };

/** @returns whether the input was taken */
export type Target = (input: Buffer, random: Random, originals: readonly Buffer[]) => boolean;

const REFUSALS = /^(PROTOCOL|TLS_PEER|IMAGE_DAMAGED|NOT_AN_IMAGE|NOT_SEALED|UNSUPPORTED_VERSION)$/;

export function outcomeOf<T>(parse: () => T): Outcome<T> {
  try {
    return { value: parse() };
  } catch (error) {
    if (!(error instanceof MultifdError) || !REFUSALS.test(error.code)) throw error;
    return { refused: `${error.code}: ${error.message}` };
  }
}
