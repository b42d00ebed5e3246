import { fstatSync, readFileSync } from "node:fs";
import type { Log } from "../../control/options.ts";
import { QemuWatch } from "../qemu-watch.ts";

const ENDING_MS = 2000;

/**
 * Ends a data plane that still has the image's lock, and so keeps others from going on in its place: one that hangs, or
 * outlived what started it. QEMU has given its connection up by then.
 * @param fd the image
 */
export async function endFormerHelper(fd: number, log: Log): Promise<void> {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const pid = lockHolder(readFileSync("/proc/locks", "utf8"), dev, ino);
  if (pid === null || !isDataPlane(pid)) return;
  const watch = new QemuWatch(pid);
  try {
    process.kill(pid, "SIGKILL");
    await watch.endsWithin(ENDING_MS);
    log.warn({ pid }, `process ${pid}, which served the VM's RAM before, was ended`);
  } finally {
    watch.close();
  }
}

/**
 * The process that has the exclusive flock(2) of a file. null: nobody has, or nobody that is seen from here.
 * @param locks /proc/locks: "1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF" (proc_locks(5))
 */
export function lockHolder(locks: string, dev: bigint, ino: bigint): number | null {
  // gnu_dev_major and gnu_dev_minor (sys/sysmacros.h).
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  const hex = (part: bigint): string => part.toString(16).padStart(2, "0");
  const file = `${hex(major)}:${hex(minor)}:${ino}`;
  for (const line of locks.split("\n")) {
    const [, pid, place] = /^\d+: FLOCK +ADVISORY +WRITE +(\d+) +(\S+) /.exec(line) ?? [];
    if (place === file && Number(pid) > 0) return Number(pid);
  }
  return null;
}

/** Whoever else has the lock is not ours to end. */
function isDataPlane(pid: number): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
    return words.includes("restore") && words.includes("--connect") && words.includes("--instant");
  } catch {
    return false;
  }
}
