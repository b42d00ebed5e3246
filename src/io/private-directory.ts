import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ioError } from "./file-io.ts";

/** Leaves room for the sockets' names: a unix socket's path has 107 bytes at most. */
const LONGEST_PARENT = 60;

/**
 * Makes a new directory for sockets that nobody else may reach, in TMPDIR unless that is too long; the caller removes it.
 * @param purpose a word for its name
 * @throws MultifdError IO, READ_ONLY, NO_SPACE
 */
export function privateDirectory(purpose: string): string {
  const parent = Buffer.byteLength(tmpdir()) < LONGEST_PARENT ? tmpdir() : "/tmp";
  try {
    return mkdtempSync(join(parent, `multifd-${purpose}-`));
  } catch (error) {
    throw ioError(error, `making a directory for sockets in ${parent} (set TMPDIR to another)`);
  }
}
