import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import type { Monitor } from "../qmp/monitor.ts";
import { quietFileThreads } from "./quiet.ts";
import { isUnderWay, migrationStatus } from "./survey.ts";

const POLL_MS = 50;
const CANCEL_MS = 10_000;
const YANK_AFTER_MS = 2000;

/**
 * Ends a migration that is under way, and waits until QEMU has ended it. Where cancelling sticks, because a socket
 * takes no more bytes, the sockets are torn out of QEMU's hands (`yank`). The settings are the caller's to put back.
 * @throws MultifdError QEMU_FAILED: it is still not over
 */
export async function cancelMigration(monitor: Monitor): Promise<void> {
  await quietFileThreads(monitor);
  const start = Date.now();
  let asked = false;
  let yanked = false;
  for (;;) {
    const status = await migrationStatus(monitor);
    if (!isUnderWay(status)) return await untilCleanedUp(monitor);
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

const CLEAN_UP_MS = 2000;

/**
 * Waits until QEMU has cleaned up after a migration that is over. Between its last status and that, its capabilities
 * must not be touched: QEMU 10.0.2 whose multifd is turned off there skips the channels and then aborts
 * (yank_unregister_instance: Assertion `QLIST_EMPTY(&entry->yankfns)'). The last thing that cleaning up does is to
 * unregister the migration's yank instance (migrate_fd_cleanup, QEMU 7.2; migration_cleanup, QEMU 10).
 */
export async function untilCleanedUp(monitor: Monitor): Promise<void> {
  // A QEMU 7.2 that lost its channels while it connected keeps the instance for ever.
  const deadline = Date.now() + CLEAN_UP_MS;
  while (Date.now() < deadline) {
    const instances = (await monitor.execute("query-yank")) as readonly { readonly type: string }[];
    if (!instances.some(({ type }) => type === "migration")) return;
    await sleep(POLL_MS / 10);
  }
}
