import { setTimeout as sleep } from "node:timers/promises";
import { cancelled, throwIfAborted } from "../../control/cancellation.ts";
import type { QemuFigures } from "../../control/events.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { QemuWatch } from "../qemu-watch.ts";

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
const AT_SWITCHOVER = "pre-switchover";

/**
 * Watches QEMU's migration until it is over.
 * @param onProgress called with each look
 * @param mayEnd asked when QEMU waits at its switchover (`pause-before-switchover`), whether it may go on
 * @returns "qemu ended" when the process is gone, whatever it was doing
 * @throws MultifdError QEMU_FAILED: the migration failed or was cancelled, or the monitor is lost while QEMU lives;
 *   CANCELLED
 */
export async function watchOutgoing(
  monitor: Monitor,
  process: QemuWatch,
  signal: AbortSignal,
  onProgress: (progress: QemuFigures) => Promise<void>,
  mayEnd: () => boolean,
): Promise<Outcome> {
  let continued = false;
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
    if (status === AT_SWITCHOVER && !continued && mayEnd()) {
      // Once: QEMU says that it waits for a moment longer, and refuses a second time when it does not.
      await monitor.execute("migrate-continue", { state: AT_SWITCHOVER });
      continued = true;
    }
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
