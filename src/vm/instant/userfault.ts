import { readFileSync } from "node:fs";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";

/**
 * Why QEMU does not take the capability postcopy-ram: mostly it may not use userfaultfd(2). 7.2 says so on its stderr
 * only (postcopy_ram_supported_by_host, migration/postcopy-ram.c), 10.0 in its answer.
 */
export function explainPostcopy(error: unknown, monitor: Monitor): unknown {
  if (!(error instanceof MultifdError) || !/Postcopy is not supported/.test(String(error.details.text))) {
    return error;
  }
  const { place, version, pid } = monitor;
  const said = String(error.details.text).replace(/^Postcopy is not supported:? ?/, "");
  const told = said === "" ? "it says why on its stderr" : said;
  const text = `the QEMU at ${place} cannot do postcopy, which an instant restore needs (${told}); ${advice(said, version.major, pid)}`;
  return new MultifdError("QEMU_UNSUPPORTED", text, error.details, error);
}

function advice(said: string, major: number, pid: number | null): string {
  const concernsRights = /userfaultfd/i.test(said) || (said === "" && !(pid !== null && maySyscall(pid)));
  if (!concernsRights) return "change that, or restore without --instant";
  const sysctl = "sysctl vm.unprivileged_userfaultfd=1";
  // util/userfaultfd.c: since 8.0 /dev/userfaultfd (Linux 6.1) is tried first.
  const device = major < 8 ? "" : "read and write on /dev/userfaultfd (Linux 6.1 or later), or ";
  return `it needs a right to userfaultfd: give its user ${device}CAP_SYS_PTRACE (root has it), or say ${sysctl}; or restore without --instant`;
}

const CAP_SYS_PTRACE = 19n;

/** Whether the system call itself is allowed to a process: by its capability, or to everybody. */
function maySyscall(pid: number): boolean {
  try {
    const [, mask = "0"] = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    if ((BigInt(`0x${mask}`) >> CAP_SYS_PTRACE) & 1n) return true;
    return readFileSync("/proc/sys/vm/unprivileged_userfaultfd", "utf8").trim() === "1";
  } catch {
    return false;
  }
}
