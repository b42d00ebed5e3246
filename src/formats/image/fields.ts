import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { damaged } from "./damage.ts";

/**
 * Checks one JSON value of the metadata and returns it typed. `path` names it in errors.
 *
 * @throws MultifdError IMAGE_DAMAGED (wrong type), UNSUPPORTED_VERSION (a word this version does not know)
 */
export type FieldReader<T> = (value: unknown, path: string) => T;

export const text: FieldReader<string> = (value, path) => {
  if (typeof value !== "string") throw mistyped(value, path, "a string");
  return value;
};

export const flag: FieldReader<boolean> = (value, path) => {
  if (typeof value !== "boolean") throw mistyped(value, path, "true or false");
  return value;
};

export function integer(least: number, most: number): FieldReader<number> {
  return (value, path) => {
    if (Number.isInteger(value) && (value as number) >= least && (value as number) <= most)
      return value as number;
    throw mistyped(value, path, `an integer from ${least} to ${most}`);
  };
}

export const uuid: FieldReader<string> = (value, path) => {
  const uuidShape = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
  if (typeof value !== "string" || !uuidShape.test(value))
    throw mistyped(value, path, "a UUID in lower case");
  return value;
};

export const base64: FieldReader<string> = (value, path) => {
  // Decoding ignores what is no base64; only what encodes back to itself was base64.
  if (typeof value !== "string" || Buffer.from(value, "base64").toString("base64") !== value) {
    throw mistyped(value, path, "base64");
  }
  return value;
};

/** A closed set of words. Later writers may add some, so a foreign one is no damage. */
export function word<const T extends string>(words: readonly T[]): FieldReader<T> {
  return (value, path) => {
    const found = words.find((known) => known === text(value, path));
    if (found !== undefined) return found;
    throw new MultifdError(
      "UNSUPPORTED_VERSION",
      `metadata field ${path} is ${shown(value)}, which this multifd-helper does not know; use a newer one`,
      { what: "metadata", field: path },
    );
  };
}

export function nullable<T>(read: FieldReader<T>): FieldReader<T | null> {
  return (value, path) => (value === null ? null : read(value, path));
}

/** A field that came later: images of older writers lack it. */
export function optional<T>(read: FieldReader<T>): FieldReader<T | null> {
  return (value, path) => (value === undefined || value === null ? null : read(value, path));
}

export function list<T>(read: FieldReader<T>): FieldReader<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw mistyped(value, path, "an array");
    return value.map((item, number) => read(item, `${path}[${number}]`));
  };
}

/** Any names, values of one kind. */
export function dictionary<T>(read: FieldReader<T>): FieldReader<Readonly<Record<string, T>>> {
  return (value, path) => {
    const entries = Object.entries(object(value, path));
    return Object.fromEntries(entries.map(([name, item]) => [name, read(item, `${path}[${shown(name)}]`)]));
  };
}

/** Known names, each with its kind. Other names are ignored: later writers may add some. */
export function record<T extends object>(
  readers: {
    readonly [K in keyof T]-?: FieldReader<T[K]>;
  },
): FieldReader<T> {
  const names = Object.keys(readers) as (string & keyof T)[];
  return (value, path) => {
    const fields = object(value, path);
    const prefix = path === "" ? "" : `${path}.`;
    const entries = names.map((name) => [name, readers[name](fields[name], `${prefix}${name}`)]);
    return Object.fromEntries(entries) as T;
  };
}

function object(value: unknown, path: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw mistyped(value, path, "an object");
  return value as Readonly<Record<string, unknown>>;
}

function mistyped(value: unknown, path: string, wanted: string): MultifdError {
  const where = path === "" ? "metadata" : `metadata field ${path}`;
  const problem =
    value === undefined ? `it is missing and must be ${wanted}` : `${shown(value)} is not ${wanted}`;
  return damaged(where, problem, { what: "metadata", field: path });
}

/** Enough of a value to recognise it in an error, with control characters escaped. */
function shown(value: unknown): string {
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object" && value !== null) return "an object";
  return JSON.stringify(typeof value === "string" ? value.slice(0, 60) : value);
}
