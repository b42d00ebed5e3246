import { rmSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { overlaysInUse } from "../disks/overlays-in-use.ts";
import { runState } from "../survey.ts";
import type { PlannedOverlay } from "./overlay-plan.ts";

/** The part of query-block-jobs' answer that is used here (qapi/block-core.json, QEMU 7.2 to 10). */
interface BlockJob {
  readonly device: string;
  readonly offset: number;
  readonly ready: boolean;
}

const POLL_MS = 20;
/** A job that gets nowhere for so long is given up. */
const STALLED_MS = 60_000;

/**
 * Writes what overlays hold back into their bases, takes them out of the VM's disks, and removes their files.
 * A VM that runs stands still for the last step: QEMU 7.2 that pivots a disk under a guest that writes to it aborts
 * (bdrv_co_write_req_prepare: Assertion `child->perm & BLK_PERM_WRITE'), or never gets there.
 * @throws MultifdError QEMU_FAILED: some are still in use
 */
export async function commitOverlays(monitor: Monitor, overlays: readonly PlannedOverlay[]): Promise<void> {
  if (overlays.length === 0) return;
  const jobs = overlays.map(({ overlayNode }) => overlayNode);
  try {
    for (const job of jobs) await monitor.execute("block-commit", { "job-id": job, device: job });
    await untilJobs(
      monitor,
      jobs,
      (found) => found.length === jobs.length && found.every(({ ready }) => ready),
    );
    await standingStill(monitor, async () => {
      for (const job of jobs) await monitor.execute("block-job-complete", { device: job });
      await untilJobs(monitor, jobs, (found) => found.length === 0);
    });
  } catch (error) {
    for (const job of jobs) {
      // Refused where there is no such job, or no more.
      await monitor.execute("block-job-cancel", { device: job, force: true }).catch(() => undefined);
    }
    throw error;
  }
  const left = await overlaysInUse(monitor, overlays);
  if (left.length > 0) throw stuck("some could not be written back");
  for (const { overlay } of overlays) rmSync(overlay, { force: true });
}

async function untilJobs(
  monitor: Monitor,
  jobs: readonly string[],
  reached: (found: readonly BlockJob[]) => boolean,
): Promise<void> {
  let done = -1;
  let deadline = 0;
  for (;;) {
    const all = (await monitor.execute("query-block-jobs")) as readonly BlockJob[];
    const found = all.filter(({ device }) => jobs.includes(device));
    if (reached(found)) return;
    // A job that failed is not there any more.
    if (found.length === 0) throw stuck("QEMU gave the jobs up");
    const offset = found.reduce((sum, job) => sum + job.offset, 0);
    if (offset !== done) deadline = Date.now() + STALLED_MS;
    done = offset;
    if (Date.now() > deadline) throw stuck(`the jobs got nowhere for ${STALLED_MS} ms`);
    await sleep(POLL_MS);
  }
}

async function standingStill(monitor: Monitor, work: () => Promise<void>): Promise<void> {
  const { running } = await runState(monitor);
  if (running) await monitor.execute("stop");
  try {
    await work();
  } finally {
    if (running) await monitor.execute("cont");
  }
}

function stuck(why: string): MultifdError {
  return new MultifdError("QEMU_FAILED", `the overlays could not be merged back: ${why}`);
}
