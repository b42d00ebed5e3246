import { statfsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import type { Log } from "../../control/options.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { type MemoryBackend, memoryBackends } from "../memory-backends.ts";

/** f_type of statfs(2): where userfaultfd knows missing pages of files. */
const TMPFS = 0x0102_1994;
const HUGETLBFS = 0x9584_58f6;

/**
 * Whether postcopy works with what the destination's RAM is made of. QEMU throws all of it away when a postcopy
 * begins, also what lies in a file, and 7.2 finds only then that the file is on a file system that cannot do: so this is
 * asked before QEMU hears of anything.
 * @throws MultifdError QEMU_UNSUPPORTED
 */
export async function checkBackends(monitor: Monitor, log: Log): Promise<void> {
  for (const backend of await memoryBackends(monitor)) {
    refuseFileOnDisk(backend, monitor.pid);
    const { id, path, share, prealloc } = backend;
    if (path !== null && !share) {
      log.warn({ path }, `RAM ${id} is a private mapping (share=off) of ${path}: the file itself is emptied`);
    }
    if (prealloc) {
      const text = `RAM ${id} was preallocated (prealloc=on): an instant restore throws that memory away, and its time was for nothing`;
      log.warn({ id }, text);
    }
  }
}

function refuseFileOnDisk({ id, path }: MemoryBackend, pid: number | null): void {
  if (path === null) return;
  const type = fileSystemOf(path, pid);
  if (type === TMPFS || type === HUGETLBFS) return;
  const found = type === null ? "cannot be looked at" : "is on another file system";
  const text = `RAM ${id} lies in ${path}, which ${found}: an instant restore needs RAM in tmpfs or hugetlbfs (/dev/shm), a memfd or anonymous memory, and would empty that file; start QEMU with such, or restore without --instant`;
  throw new MultifdError("QEMU_UNSUPPORTED", text, { path, id });
}

/** f_type; null where the file cannot be looked at, or no longer. */
function fileSystemOf(path: string, pid: number | null): number | null {
  try {
    return statfsSync(asSeenBy(path, pid)).type;
  } catch {
    return null;
  }
}

/** Of a QEMU in another directory or mount namespace, where /proc shows it. */
function asSeenBy(path: string, pid: number | null): string {
  if (pid === null) return path;
  return isAbsolute(path) ? join(`/proc/${pid}/root`, path) : join(`/proc/${pid}/cwd`, path);
}
