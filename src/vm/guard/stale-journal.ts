import { closeSync } from "node:fs";
import { MultifdError } from "../../errors.ts";
import { hasEnded, openProcess } from "../../io/libc.ts";
import { targetName, targetOption, type VmTarget } from "../target.ts";
import { journalPath, readJournal, removeJournal } from "./journal.ts";

/**
 * A journal of this VM means that somebody else is working on it, or did and was killed together with its guardian:
 * what its settings were is written there only.
 * @throws MultifdError VM_STATE
 */
export function refuseStaleJournal(target: VmTarget, qemuPid: number | null): void {
  const path = journalPath(target);
  const journal = readJournal(path);
  if (journal === null) return;
  if (journal.qemuPid !== qemuPid) {
    removeJournal(path); // of an earlier QEMU at this place
    return;
  }
  const place = targetName(target);
  const text = isAlive(journal.pid)
    ? `process ${journal.pid} is working on the VM at ${place}: wait for its end`
    : `an earlier save of the VM at ${place} ended without finishing: run multifd-helper recover ${targetOption(target)} first`;
  throw new MultifdError("VM_STATE", text, { pid: journal.pid });
}

/** Whether a process of this number runs. */
export function isAlive(pid: number): boolean {
  try {
    const pidfd = openProcess(pid);
    const ended = hasEnded(pidfd);
    closeSync(pidfd);
    return !ended;
  } catch {
    return false;
  }
}
