import { throwIfAborted } from "../../control/cancellation.ts";
import { MultifdError } from "../../errors.ts";
import { cancelMigration } from "../cancel.ts";
import { HASTE } from "../quiet.ts";
import { readSettings, set } from "../settings.ts";
import { migrationStatus } from "../survey.ts";
import { openMonitor, type VmTarget } from "../target.ts";
import { journalPath, readJournal, removeJournal } from "./journal.ts";
import { carryOut, goOn } from "./rescue.ts";
import { isAlive } from "./stale-journal.ts";

export interface RecoverOptions {
  readonly vm: VmTarget;
  /** Lets a paused VM run although nothing tells that it ran. */
  readonly run?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface Recovery {
  /** Whether a save that ended without finishing left word of how the VM was. */
  readonly journal: boolean;
  /** RunState of the VM now, or "ended". */
  readonly state: string;
  readonly migration: string;
  /** Overlays of a snapshot that did not finish: what the VM writes is in them, and they need the files below. */
  readonly overlays: readonly string[];
}

/** Capabilities that a save turns on and that make later migrations fail or mean something else. */
const OURS = ["multifd", "mapped-ram", "background-snapshot", "pause-before-switchover"];

/**
 * Puts a VM right after a save of it was killed together with its guardian: cancels its migration, puts its settings back,
 * and lets it run if it ran. Without the word of a journal a paused VM stays paused unless `run` says otherwise.
 * @throws MultifdError MONITOR_UNREACHABLE, VM_STATE (a save is at work on it), QEMU_FAILED
 */
export async function recover({ vm, run = false, signal }: RecoverOptions): Promise<Recovery> {
  throwIfAborted(signal);
  const path = journalPath(vm);
  const found = readJournal(path);
  if (found !== null && isAlive(found.pid)) {
    const text = `process ${found.pid} is working on this VM: end it, and its guardian puts the VM right`;
    throw new MultifdError("VM_STATE", text, { pid: found.pid });
  }
  const monitor = await openMonitor(vm);
  try {
    // Another QEMU at the same place is none of the journal's business.
    const journal = found?.qemuPid === monitor.pid ? found : null;
    let state: string;
    let overlays: readonly string[] = [];
    if (journal !== null) {
      ({ state, overlays } = await carryOut(monitor, journal));
    } else {
      const { capabilities, parameters } = await readSettings(monitor);
      await cancelMigration(monitor);
      const off = OURS.filter((name) => name in capabilities).map((name) => [name, false]);
      const hurried = HASTE.filter((name) => name in parameters).map((name) => [name, parameters[name]]);
      await set(monitor, {
        capabilities: Object.fromEntries(off),
        parameters: Object.fromEntries(hurried),
      });
      state = await goOn(monitor, run);
    }
    if (run && state !== "ended" && state !== "running") state = await goOn(monitor, true);
    removeJournal(path);
    const migration = state === "ended" ? "completed" : await migrationStatus(monitor);
    return { journal: journal !== null, state, migration, overlays };
  } finally {
    await monitor.close();
  }
}
