import fs from "node:fs";
import { isDeepStrictEqual } from "node:util";
import type { QemuIdentity } from "../../formats/mapped-ram/resumed.ts";

/** What a process is called for ever, so that no later one with its number is taken for it; null: there is none. */
export function identityOf(pid: number): QemuIdentity | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field, the program's name in brackets, may hold anything.
    const [state, ...others] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // Ended, and not yet collected by its parent: nothing of it is left.
    if (state === "Z" || state === "X") return null;
    const bootId = fs.readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return { pid, startTicks: Number(others[STARTTIME]), bootId };
  } catch {
    return null;
  }
}

/** Field 22 of /proc/PID/stat (proc(5)), counted from the one behind the state. */
const STARTTIME = 22 - 4;

/** What has become of the QEMU of an instant restore, as far as this host can tell. */
export function fateOf(qemu: QemuIdentity | null): "alive" | "gone" | "unknown" {
  if (qemu === null) return "unknown";
  return isDeepStrictEqual(identityOf(qemu.pid), qemu) ? "alive" : "gone";
}
