import { MultifdError } from "../errors.ts";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "silent"] as const;

/*
 * Option values as text. `what` names the option in the message. All throw MultifdError USAGE.
 */

const UNITS: Readonly<Record<string, number>> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

const MIB = 2 ** 20;
const LEAST_RAM = 16 * MIB;
/** A setTimeout beyond 2^31-1 ms would fire at once. */
const MAX_SECONDS = 2_147_483;

/** Bytes: "4096", "64K", "1GiB", "512 MiB", "0x1000". K, M, G and T are binary, with or without iB or B. */
export function parseSize(text: string, what: string): number {
  const match = /^(?:0x(?<hex>[0-9a-f]+)|(?<count>\d+) ?(?:(?<unit>[KMGT])(?:iB|B)?|B)?)$/i.exec(text);
  const { hex, count, unit = "" } = match?.groups ?? {};
  const bytes =
    hex !== undefined ? Number.parseInt(hex, 16) : Number(count) * (UNITS[unit.toUpperCase()] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) {
    throw usage(`${what} wants a size such as 4096, 64K, 1GiB or 0x1000, not ${quote(text)}`);
  }
  return bytes;
}

/** Like parseSize, but 0 makes no sense. */
export function parsePositiveSize(text: string, what: string): number {
  const bytes = parseSize(text, what);
  if (bytes === 0) throw usage(`${what} must be more than 0 bytes`);
  return bytes;
}

/** The RAM of a guest that we start ourselves: whole MiB. */
export function parseRam(text: string, what: string): number {
  const bytes = parsePositiveSize(text, what);
  if (bytes >= LEAST_RAM && bytes % MIB === 0) return bytes;
  throw usage(`${what} wants whole MiB, at least 16M, and ${text} is ${bytes} bytes`);
}

/** Seconds with decimals, as milliseconds. */
export function parseSeconds(text: string, what: string): number {
  const seconds = /^(\d+(\.\d*)?|\.\d+)$/.test(text) ? Number(text) : Number.NaN;
  if (!(seconds <= MAX_SECONDS)) {
    throw usage(`${what} wants seconds from 0 to ${MAX_SECONDS} such as 60 or 0.5, not ${quote(text)}`);
  }
  return Math.round(seconds * 1000);
}

/** Like parseSeconds, but waiting no time at all makes no sense. */
export function parsePositiveSeconds(text: string, what: string): number {
  const ms = parseSeconds(text, what);
  if (ms === 0) throw usage(`${what} must be at least 0.001 seconds`);
  return ms;
}

export function parseInteger(min: number, max: number): (text: string, what: string) => number {
  return (text, what) => {
    const value = /^\d+$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw usage(`${what} wants a whole number from ${min} to ${max}, not ${quote(text)}`);
  };
}

export function parseChoice<T extends string>(choices: readonly T[]): (text: string, what: string) => T {
  return (text, what) => {
    const choice = choices.find((candidate) => candidate === text);
    if (choice === undefined) throw usage(`${what} is one of ${choices.join(", ")}, not ${quote(text)}`);
    return choice;
  };
}

/** "1,2,4": several values, each once. */
export function parseList<T>(parse: (text: string, what: string) => T): (text: string, what: string) => T[] {
  return (text, what) => {
    const values = text.split(",").map((part) => parse(part.trim(), what));
    if (new Set(values).size === values.length) return values;
    throw usage(`${what} has a value twice: ${quote(text)}`);
  };
}

/** "KEY=VALUE" cut at the first "=". Keys are what a person can read in a list: no control characters, no spaces. */
export function parsePair(text: string, what: string): [key: string, value: string] {
  const equals = text.indexOf("=");
  const key = text.slice(0, Math.max(equals, 0));
  if (!/^[^\s\p{Cc}]{1,128}$/u.test(key)) {
    throw usage(
      `${what} wants KEY=VALUE with a key of 1 to 128 characters and no spaces, not ${quote(text.slice(0, 40))}`,
    );
  }
  return [key, text.slice(equals + 1)];
}

export function usage(message: string): MultifdError {
  return new MultifdError("USAGE", message);
}

/** The errno name of a failed system call ("ENOENT"), or what there is instead. */
export function errnoOf(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code ?? message;
}

function quote(text: string): string {
  return JSON.stringify(text);
}
