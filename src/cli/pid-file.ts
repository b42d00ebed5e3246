import { renameSync, writeFileSync } from "node:fs";
import { MultifdError } from "../errors.ts";
import { errnoOf } from "./values.ts";

/** Writes a process number as daemons do, whole or not at all. Throws IO. */
export function writePidFile(path: string, pid: number): void {
  const unfinished = `${path}.${process.pid}`;
  try {
    writeFileSync(unfinished, `${pid}\n`, { flag: "wx" });
    renameSync(unfinished, path);
  } catch (error) {
    const text = `the pid file ${path} cannot be written (${errnoOf(error)}): give another path`;
    throw new MultifdError("IO", text, { path, errno: errnoOf(error) }, error);
  }
}
