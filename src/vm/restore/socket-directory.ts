import { chownSync, statSync } from "node:fs";
import { privateDirectory } from "../../io/private-directory.ts";

/**
 * A private directory in which QEMU, whose process has the number `pid` if it is known, can make a socket to listen on. The
 * caller removes it.
 */
export function socketDirectory(pid: number | null): string {
  const directory = privateDirectory("restore");
  giveTo(pid, directory);
  return directory;
}

/** QEMU makes the socket; one that runs as another user needs the directory. */
export function giveTo(pid: number | null, directory: string): void {
  const stat = pid === null ? undefined : statSync(`/proc/${pid}`, { throwIfNoEntry: false });
  if (stat !== undefined && stat.uid !== process.getuid?.()) chownSync(directory, stat.uid, stat.gid);
}
