import { setTimeout as sleep } from "node:timers/promises";
import { cancelled, throwIfAborted } from "../../control/cancellation.ts";
import type { QemuFigures } from "../../control/events.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { QemuWatch } from "../qemu-watch.ts";
import { isUnderWay } from "../survey.ts";

/** The part of query-migrate's answer that is used here (qapi/migration.json, QEMU 7.2 to 10). */
interface MigrationInfo {
  readonly status?: string;
  readonly "error-desc"?: string;
  readonly ram?: {
    readonly transferred: number;
    readonly remaining: number;
    readonly total: number;
    readonly "dirty-sync-count": number;
  };
}

/** How the migration ended, as far as QEMU could tell. */
export type Outcome = "completed" | "qemu ended";

const POLL_MS = 50;

/**
 * Watches QEMU's migration until it is over.
 * @param onProgress called with each look
 * @returns "qemu ended" when the process is gone, whatever it was doing
 * @throws MultifdError QEMU_FAILED: the migration failed or was cancelled, or the monitor is lost while QEMU lives;
 *   CANCELLED
 */
export async function watchOutgoing(
  monitor: Monitor,
  process: QemuWatch,
  signal: AbortSignal,
  onProgress: (progress: QemuFigures) => Promise<void>,
): Promise<Outcome> {
  for (;;) {
    throwIfAborted(signal);
    let info: MigrationInfo;
    try {
      info = (await monitor.execute("query-migrate")) as MigrationInfo;
    } catch (error) {
      if (await process.endsWithin(1000)) return "qemu ended";
      throw error;
    }
    const { status = "none" } = info;
    if (status === "completed") return "completed";
    if (status === "failed" || status === "cancelled") throw failure(status, info["error-desc"]);
    await onProgress(progressOf(info));
    await sleep(POLL_MS, undefined, { signal }).catch(() => {
      throw cancelled(signal);
    });
  }
}

function progressOf({ status = "none", ram }: MigrationInfo): QemuFigures {
  return {
    status,
    transferredBytes: ram?.transferred ?? 0,
    remainingBytes: ram?.remaining ?? 0,
    totalBytes: ram?.total ?? 0,
    passes: ram?.["dirty-sync-count"] ?? 0,
  };
}

function failure(status: string, reason: string | undefined): MultifdError {
  const why = reason === undefined ? "" : `: ${reason}`;
  const what = status === "cancelled" ? "was cancelled by somebody else" : "failed";
  return new MultifdError("QEMU_FAILED", `QEMU says that the migration ${what}${why}`, {
    status,
    text: reason,
  });
}

const CANCEL_MS = 10_000;
const YANK_AFTER_MS = 2000;

/**
 * Ends a migration that is under way, and waits until QEMU has ended it. Where cancelling sticks, because a socket
 * takes no more bytes, the sockets are torn out of QEMU's hands (`yank`).
 * @throws MultifdError QEMU_FAILED: it is still not over
 */
export async function cancelMigration(monitor: Monitor): Promise<void> {
  const start = Date.now();
  let asked = false;
  let yanked = false;
  for (;;) {
    const { status = "none" } = (await monitor.execute("query-migrate")) as MigrationInfo;
    if (!isUnderWay(status)) return;
    const elapsed = Date.now() - start;
    if (elapsed > CANCEL_MS) {
      const text = `QEMU at ${monitor.place} is still "${status}" ${CANCEL_MS} ms after its migration was cancelled; look at its log`;
      throw new MultifdError("QEMU_FAILED", text, { status });
    }
    if (!asked) await monitor.execute("migrate_cancel");
    asked = true;
    if (elapsed > YANK_AFTER_MS && !yanked) {
      yanked = true;
      // Refused where the migration has just ended: that is what was wanted.
      const instances = [{ type: "migration" }];
      await monitor.execute("yank", { instances }, { outOfBand: true }).catch(() => undefined);
    }
    await sleep(POLL_MS);
  }
}
