import { rmSync } from "node:fs";
import { inspect } from "../../control/inspect.ts";
import { flushDirectoryOf } from "../../io/image-target/durability.ts";
import { inheritedFd } from "../../io/image-target/file-kind.ts";
import { removePartial } from "../../io/image-target/replacement.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { cancelMigration, untilCleanedUp } from "../cancel.ts";
import { overlaysInUse } from "../disks/overlays-in-use.ts";
import { takeFilesBack } from "../engine-file/file-uri.ts";
import { type Settings, set } from "../settings.ts";
import { runState } from "../survey.ts";
import type { Journal } from "./journal.ts";

/** Run states from which `cont` lets a VM go on as if it had not been saved (qapi/run-state.json). */
const CONTINUABLE: readonly string[] = ["paused", "postmigrate", "prelaunch", "finish-migrate", "save-vm"];

/**
 * Undoes what a save did to a VM: its migration is cancelled, its settings are as they were, and it runs if it ran.
 * Fine to call at any point of a save, and again.
 * @returns RunState of the VM afterwards
 * @throws MultifdError QEMU_FAILED
 */
async function rescue(
  monitor: Monitor,
  before: { readonly running: boolean; readonly settings: Settings },
): Promise<string> {
  await putBack(monitor, before.settings);
  await takeFilesBack(monitor);
  return await goOn(monitor, before.running);
}

/** The first half of a rescue: no migration, and settings as they were. */
export async function putBack(monitor: Monitor, settings: Settings): Promise<void> {
  await cancelMigration(monitor);
  await set(monitor, settings);
}

/** Lets the VM run if it is to and does not. */
export async function goOn(monitor: Monitor, running: boolean): Promise<string> {
  const { status } = await runState(monitor);
  if (!running || !CONTINUABLE.includes(status)) return status;
  await monitor.execute("cont");
  return (await runState(monitor)).status;
}

/** What became of a VM. */
export interface CarriedOut {
  /** RunState, or "ended". */
  readonly state: string;
  /** Overlays of a snapshot that the VM's disks go on in. */
  readonly overlays: readonly string[];
}

/** Does what a journal asks for when the process that wrote it is gone. */
export async function carryOut(monitor: Monitor, journal: Journal): Promise<CarriedOut> {
  const published = journal.phase === "published" || (await isPublished(journal));
  const state = published ? await finish(monitor, journal) : await rescue(monitor, journal);
  if (!published) removeLeftovers(journal);
  const used = state === "ended" ? [] : await overlaysInUse(monitor, journal.overlays);
  return { state, overlays: used.map(({ overlay }) => overlay) };
}

/**
 * Whether the image got its name before the process was killed that would have said so. Its entry is flushed: the VM
 * may end because of it.
 */
async function isPublished({ image, offset, startedMs }: Journal): Promise<boolean> {
  if (inheritedFd(image) !== null) return false;
  try {
    const { sealed, created } = await inspect({ image, offset });
    if (!sealed || Date.parse(created ?? "") < startedMs) return false;
    flushDirectoryOf(image);
    return true;
  } catch {
    return false;
  }
}

/** Files of the killed process. */
export function removeLeftovers({ image, directory }: Journal): void {
  rmSync(directory, { recursive: true, force: true });
  if (inheritedFd(image) === null) removePartial(image);
}

/** What follows a published image: the VM ends, stays paused, or runs on; where it stays its settings are put back. */
export async function finish(
  monitor: Monitor,
  { afterwards, settings }: Pick<Journal, "afterwards" | "settings">,
): Promise<string> {
  if (afterwards === "quit") {
    // Whether QEMU ends is seen at its process: through libvirt the answer to this gets lost more often than not.
    await monitor.execute("quit").catch(() => undefined);
    return "ended";
  }
  await untilCleanedUp(monitor);
  await set(monitor, settings);
  return await goOn(monitor, afterwards === "resume");
}
