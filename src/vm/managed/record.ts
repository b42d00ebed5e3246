import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError } from "../../io/file-io.ts";
import { flushDirectoryOf } from "../../io/image-target/durability.ts";
import type { ManagedPlace } from "./directory.ts";

/** How a VM was started last, so that it can be again without being told. */
export interface ManagedRecord {
  readonly version: 1;
  /** QEMU and its arguments as they were given to start. */
  readonly command: readonly string[];
  /** The directory that relative paths among them are relative to. */
  readonly cwd: string;
}

const VERSION = 1;

/** Replaces the record as a whole, if it says something else. Throws IO. */
export function writeRecord({ record }: ManagedPlace, command: readonly string[], cwd: string): void {
  const content: ManagedRecord = { version: VERSION, command, cwd };
  const text = `${JSON.stringify(content)}\n`;
  const unfinished = `${record}.${process.pid}`;
  try {
    if (textOf(record) === text) return;
    fs.writeFileSync(unfinished, text, { mode: 0o600, flush: true });
    fs.renameSync(unfinished, record);
    flushDirectoryOf(record);
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw ioError(error, `writing ${record}`);
  }
}

/** null: it was never started by start. Throws IO when it cannot be read or is none. */
export function readRecord({ record, name }: ManagedPlace): ManagedRecord | null {
  let text: string | null;
  try {
    text = textOf(record);
  } catch (error) {
    throw ioError(error, `reading ${record}`);
  }
  if (text === null) return null;
  const found = parse(text);
  if (found !== null) return found;
  const how = `start it once with its command line: start ${name} -- QEMU ARGS…`;
  throw new MultifdError("IO", `${record} does not say how ${name} is started: ${how}`, { path: record });
}

function textOf(file: string): string | null {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if (hasCode(error, "ENOENT")) return null;
    throw error;
  }
}

function parse(text: string): ManagedRecord | null {
  try {
    const { version, command, cwd } = JSON.parse(text) as Partial<ManagedRecord>;
    const valid =
      version === VERSION &&
      typeof cwd === "string" &&
      Array.isArray(command) &&
      command.length > 0 &&
      command.every((word) => typeof word === "string");
    return valid ? { version, command, cwd } : null;
  } catch {
    return null;
  }
}
