import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { Disk } from "../disks/block-info.ts";
import { refuseUnfit } from "../save/refusals.ts";
import type { VmSession } from "../session.ts";
import type { SnapshotVmOptions } from "./options.ts";

/** @throws MultifdError VM_STATE */
export function refuseSnapshot(
  { monitor, survey }: VmSession,
  { disks, memoryOnly }: SnapshotVmOptions,
  written: readonly Disk[],
): void {
  refuseUnfit(survey, monitor);
  if (survey.status === "suspended") {
    const text = `the guest of the VM at ${monitor.place} sleeps, and a snapshot would not leave it asleep: wake it first (system_wakeup)`;
    throw new MultifdError("VM_STATE", text, { status: survey.status });
  }
  if (disks || memoryOnly || written.length === 0) return;
  const names = written.map(({ medium }) => medium.image.filename).join(", ");
  const text = `the VM at ${monitor.place} has disks that it goes on to write (${names}), and memory without its disks destroys them: use --disks to take them along, or --memory-only if you do that yourself`;
  throw new MultifdError("VM_STATE", text, { disks: names });
}

/**
 * A QEMU older than 8.1 leaves a guest's RAM write-protected for ever when a background snapshot of it fails or is
 * cancelled: the VM says that it runs, and stands still at its next write (measured with 7.2.22; mended by commit
 * 3a8b81f2e6 of QEMU). That cannot be asked for; switchover-ack came with the same version.
 */
const MENDED_WITH = "switchover-ack";

/** @throws MultifdError QEMU_UNSUPPORTED */
export function refuseBackground({ monitor, found }: VmSession): void {
  const { capabilities } = found;
  if (capabilities["background-snapshot"] === undefined) {
    throw unsupported(monitor, "it has no such capability");
  }
  if (capabilities[MENDED_WITH] === undefined) {
    throw unsupported(
      monitor,
      "a QEMU older than 8.1 freezes the guest for ever if such a snapshot fails or is cancelled",
    );
  }
}

/** QEMU's own reason, of the host or of the VM's memory (migrate_caps_check, QEMU 7.2 to 10). */
export function explainBackground(error: unknown, monitor: Monitor): unknown {
  if (!(error instanceof MultifdError) || error.details.command !== "migrate-set-capabilities") return error;
  return unsupported(monitor, String(error.details.text), error);
}

function unsupported(monitor: Monitor, why: string, cause?: unknown): MultifdError {
  const text = `the VM at ${monitor.place} cannot be snapshotted in the background (${why}): use --live`;
  return new MultifdError("QEMU_UNSUPPORTED", text, {}, cause);
}
