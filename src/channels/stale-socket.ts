import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { hasCode } from "../io/file-io.ts";
import { tryLock } from "../io/libc.ts";
import { removeLeftLink } from "./socket-place.ts";

const RETRY_MS = 10;
/** Longer than any helper needs. Anybody who may read a directory can lock it: that must not keep us from working. */
const LOCK_MS = 1000;

/**
 * Makes PATH free of what a dead helper left there. Throws EADDRINUSE when it holds anything else. Of several helpers
 * that find the same leftover at once only one may remove it, or a slow one would remove the socket of a quick one.
 * @returns to be called when the new socket stands at PATH
 */
export async function clearPath(file: string): Promise<() => void> {
  if (!isTaken(file)) return () => undefined;
  const release = await lockDirectory(path.dirname(file));
  try {
    if (isTaken(file) && !(await removeStale(file))) {
      throw Object.assign(new Error("it is taken"), { code: "EADDRINUSE" });
    }
    return release;
  } catch (error) {
    release();
    throw error;
  }
}

async function lockDirectory(directory: string): Promise<() => void> {
  let fd: number;
  try {
    fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  } catch {
    // It may be passed and written to, but not read.
    return () => undefined;
  }
  const deadline = performance.now() + LOCK_MS;
  while (!tryLock(fd) && performance.now() < deadline) await sleep(RETRY_MS);
  return () => fs.closeSync(fd);
}

/** Removes a socket file that nobody listens on any more; false when somebody does, or when it is no socket. */
async function removeStale(file: string): Promise<boolean> {
  const refused = await new Promise<boolean>((resolve) => {
    const probe = net.connect({ path: file });
    probe.once("connect", () => {
      probe.destroy();
      resolve(false);
    });
    // ENOENT: a link that leads nowhere.
    probe.once("error", (error) => resolve(hasCode(error, "ECONNREFUSED", "ENOENT")));
  });
  if (!refused) return false;
  if (!fs.lstatSync(file, { throwIfNoEntry: false })?.isSocket()) return removeLeftLink(file);
  fs.rmSync(file, { force: true });
  return true;
}

function isTaken(file: string): boolean {
  return fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;
}
