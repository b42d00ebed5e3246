import fs from "node:fs";
import path from "node:path";
import { promisify } from "node:util";
import { ioError } from "../file-io.ts";

const fdatasync = promisify(fs.fdatasync);

/** Waits until everything written to the file so far is on stable storage. */
export async function flush(fd: number): Promise<void> {
  try {
    await fdatasync(fd);
  } catch (error) {
    throw ioError(error, "flushing the image");
  }
}

/** A new name, or a changed one, is only durable when its directory is flushed. */
export function flushDirectoryOf(file: string): void {
  const fd = fs.openSync(path.dirname(file), fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

/** Ends a file that is all ours where its image ends. */
export function shrink(fd: number, length: number): void {
  try {
    fs.ftruncateSync(fd, length);
  } catch (error) {
    throw ioError(error, "cutting the image to its length");
  }
}

/** Makes a file at least so long; what is added is a hole. */
export function lengthen(fd: number, length: number): void {
  try {
    if (fs.fstatSync(fd).size < length) fs.ftruncateSync(fd, length);
  } catch (error) {
    throw ioError(error, "giving the image its length", length);
  }
}

/** Room that the file system of an open file has for users. */
export function freeBytes(fd: number): number {
  // statfs by descriptor is what Node lacks; the kernel's own name for the descriptor does as well.
  const { bavail, bsize } = fs.statfsSync(`/proc/self/fd/${fd}`);
  return bavail * bsize;
}
