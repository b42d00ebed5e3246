import { closeSync } from "node:fs";
import { MultifdError } from "../errors.ts";
import { hasEnded, openProcess } from "../io/libc.ts";
import type { Monitor } from "../qmp/monitor.ts";
import { journalPath, readJournal, removeJournal } from "./journal.ts";
import { isUnderWay, type Survey } from "./survey.ts";
import { targetName, type VmTarget } from "./target.ts";

/** Run states in which a VM's state is whole and can be migrated (qapi/run-state.json). */
const SAVEABLE: readonly string[] = [
  "running",
  "paused",
  "prelaunch",
  "suspended",
  "watchdog",
  "guest-panicked",
  "io-error",
];

/** Why a VM in such a state cannot be saved, and what to do. */
const REFUSALS: Readonly<Record<string, string>> = {
  inmigrate: "it waits for an incoming migration: there is nothing in it to save",
  postmigrate: "its state was migrated already; say cont to it first, or end it if that image is what counts",
  shutdown: "the guest has shut down: there is nothing to save",
};

/** @throws MultifdError VM_STATE */
export function refuseUnfit({ status, migration }: Survey, monitor: Monitor): void {
  if (isUnderWay(migration)) {
    const text = `the VM at ${monitor.place} is migrating already (${migration}): wait for its end, or cancel that migration`;
    throw new MultifdError("VM_STATE", text, { status, migration });
  }
  if (SAVEABLE.includes(status)) return;
  const why = REFUSALS[status] ?? `it is in the state ${status}`;
  throw new MultifdError("VM_STATE", `the VM at ${monitor.place} cannot be saved: ${why}`, { status });
}

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
    : `an earlier save of the VM at ${place} ended without finishing: run multifd-helper recover --qmp ${place} first`;
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
