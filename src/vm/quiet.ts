import { setTimeout as sleep } from "node:timers/promises";
import type { Monitor } from "../qmp/monitor.ts";
import { readSettings, type Settings } from "./settings.ts";
import { isUnderWay, migrationStatus } from "./survey.ts";

/*
 * QEMU 10.0.2 frees the bitmaps of a mapped-ram file before it joins the threads that write it (ram_save_cleanup comes
 * before multifd_send_shutdown): a thread that takes up its next pages just then ends QEMU by SIGSEGV, and the VM with
 * it. Every eighth of the saves that a test cancelled ended so. While QEMU waits at its switchover, it hands out no pages.
 */

/** What a mapped-ram save with multifd sets besides, so that it can be cancelled. It wants `migrate-continue` at its end. */
export const CANCELLABLE: Settings = { capabilities: { "pause-before-switchover": true }, parameters: {} };

/** Bytes per second, and milliseconds, with which QEMU thinks that whatever is left fits into its downtime. */
const IN_HASTE = { "avail-switchover-bandwidth": 2 ** 50, "downtime-limit": 1000 };

/** The parameters that quietFileThreads() changes; they are among the settings that are put back after a save. */
export const HASTE: readonly string[] = Object.keys(IN_HASTE);

const POLL_MS = 10;
/** QEMU looks every 100 ms (migration/migration.c, BUFFER_DELAY); a disk that hangs is not waited for. */
const PATIENCE_MS = 5000;

/** Has the threads that write a mapped-ram file run dry, ahead of `migrate_cancel`: QEMU goes to its switchover and waits. */
export async function quietFileThreads(monitor: Monitor): Promise<void> {
  if (!isUnderWay(await migrationStatus(monitor))) return;
  const { capabilities } = await readSettings(monitor);
  const names = ["mapped-ram", "multifd", ...Object.keys(CANCELLABLE.capabilities)];
  if (!names.every((name) => capabilities[name])) return;
  await monitor.execute("migrate-set-parameters", IN_HASTE);
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline) {
    const status = await migrationStatus(monitor);
    if (status !== "active" && status !== "setup") return;
    await sleep(POLL_MS);
  }
}
