import { isDeepStrictEqual } from "node:util";
import { type ErrorDetails, MultifdError } from "../../errors.ts";
import type { QemuIdentity } from "../../formats/mapped-ram/resumed.ts";
import type { FoundMark } from "../mapped-ram/resumed.ts";
import type { Log } from "../options.ts";
import type { ResumedReport } from "../reports.ts";
import { SILENT } from "../silent-log.ts";
import { fateOf } from "./identity.ts";

export interface MarkOptions {
  /** As it was given. */
  readonly image: string;
  /** Warns where the mark would be a reason to refuse. */
  readonly force?: boolean | undefined;
  readonly log?: Log | undefined;
}

/**
 * Refuses an image whose VM an instant restore let run: its disks have moved on since.
 * @throws MultifdError VM_RAN_ON, IMAGE_DAMAGED (the mark cannot be read)
 */
export function refuseRanOn(resumed: ResumedReport | null, options: MarkOptions): void {
  if (resumed !== null) refuse(options, resumed.at === null ? unreadable(options) : ranOn(resumed, options));
}

/**
 * Refuses to go on with a restore that is not this image's, or not this QEMU's.
 * @param peer who is connected to; null: nobody can tell, as over tcp
 * @throws MultifdError VM_MISMATCH, VM_RAN_ON (it is complete), IMAGE_DAMAGED (the mark cannot be read)
 */
export function refuseUnlessResumable(
  resumed: ResumedReport | null,
  peer: QemuIdentity | null,
  options: MarkOptions,
): void {
  const { image } = options;
  if (resumed === null) {
    const text = `${image} was not resumed by an instant restore, so that no QEMU waits for the rest of it: give the image that was, or say --force if this is a good copy of it`;
    refuse(options, new MultifdError("VM_MISMATCH", text, {}));
  } else if (resumed.at === null || resumed.completed !== null) refuseRanOn(resumed, options);
  else if (resumed.qemu !== null && peer !== null && !isDeepStrictEqual(resumed.qemu, peer)) {
    const text = `the VM in ${image} was resumed by another QEMU (${nameOf(resumed.qemu)}) than this one (${nameOf(peer)}), which has other RAM: give the image of this one`;
    refuse(options, new MultifdError("VM_MISMATCH", text, { ...factsOf(resumed), peer: peer.pid }));
  }
}

/** What `inspect` and `verify` say. */
export function reportMark(found: FoundMark): ResumedReport | null {
  if (found === null) return null;
  if (found === "unreadable") return { at: null, completed: null, session: null, qemu: null };
  const { resumedMs, completedMs, session, qemu } = found;
  return {
    at: isoTime(resumedMs),
    completed: completedMs === null ? null : isoTime(completedMs),
    session,
    qemu,
  };
}

function refuse({ force, log = SILENT }: MarkOptions, error: MultifdError): void {
  if (force !== true) throw error;
  log.warn(error.details, `${error.message}; going on because of --force`);
}

function ranOn(resumed: ResumedReport, { image }: MarkOptions): MultifdError {
  const text = `an instant restore let the VM in ${image} run at ${resumed.at}, and its disks have moved on since; ${waysOut(resumed)}`;
  return new MultifdError("VM_RAN_ON", text, factsOf(resumed));
}

function unreadable({ image }: MarkOptions): MultifdError {
  const text = `${image} has a mark of an instant restore that cannot be read, and so its VM counts as resumed, its disks as moved on: boot the VM, or use another image; --force is for a VM whose disks did not move`;
  return new MultifdError("IMAGE_DAMAGED", text, {});
}

function waysOut({ completed, qemu }: ResumedReport): string {
  const force = "--force is for a VM whose disks did not move";
  if (completed !== null) {
    return `that restore was complete at ${completed}: save the VM again, or boot it; ${force}`;
  }
  const resume = "go on with --resume --qmp PATH";
  switch (fateOf(qemu)) {
    case "alive":
      return `that restore is not complete, and its QEMU (process ${qemu?.pid}) still runs: ${resume}; ${force}`;
    case "gone":
      return `that restore was not completed, and its QEMU is gone: boot the VM from its disks; ${force}`;
    case "unknown":
      return `that restore was not completed: ${resume} if its QEMU still runs, else boot the VM from its disks; ${force}`;
  }
}

function factsOf({ at, completed, qemu }: ResumedReport): ErrorDetails {
  return { resumed: at, completed, pid: qemu?.pid ?? null };
}

function nameOf({ pid, startTicks, bootId }: QemuIdentity): string {
  return `process ${pid}, started at tick ${startTicks} of boot ${bootId.slice(0, 8)}`;
}

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
