import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { isUnderWay, type Survey } from "../survey.ts";

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
 * A backup that has not ended makes QEMU fail the migration once all RAM was sent, with "Bad address" (10.0.2) or without
 * a word (7.2.22). Mirrors and streams do not.
 * @throws MultifdError VM_STATE
 */
export async function refuseBackups(monitor: Monitor): Promise<void> {
  const jobs = (await monitor.execute("query-block-jobs")) as readonly {
    readonly device: string;
    readonly type: string;
    readonly status: string;
  }[];
  const names = jobs
    .filter(({ type, status }) => type === "backup" && status !== "concluded")
    .map(({ device }) => device)
    .join(", ");
  if (names === "") return;
  const text = `the VM at ${monitor.place} cannot be saved while its disks are backed up (job ${names}): wait for its end, or cancel it (block-job-cancel)`;
  throw new MultifdError("VM_STATE", text, { jobs: names });
}
