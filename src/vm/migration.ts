import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import type { QmpClient } from "../qmp/client.ts";

export interface MigrationSettings {
  readonly channels: number;
  /** "none" if absent. The destination needs the method that the source used. */
  readonly compression?: "none" | "zlib" | "zstd";
}

/** The part of query-migrate's answer that tells how it went. */
export interface MigrationInfo {
  readonly status: string;
  readonly "error-desc"?: string;
}

/**
 * Turns multifd on, on either side. To be called before migrateTo or listenForMigration: QEMU 10 refuses
 * afterwards, and 7.2 keeps the old backlog. Bandwidth becomes unlimited; QEMU's default is 128 MiB/s.
 */
export async function setMultifd(qmp: QmpClient, settings: MigrationSettings): Promise<void> {
  const capabilities = ["multifd", "events"].map((capability) => ({ capability, state: true }));
  await qmp.execute("migrate-set-capabilities", { capabilities });
  await qmp.execute("migrate-set-parameters", {
    "multifd-channels": settings.channels,
    "multifd-compression": settings.compression ?? "none",
    "max-bandwidth": 0,
  });
}

/** Starts the outgoing migration. `uri` is QEMU's, e.g. "unix:/path". */
export async function migrateTo(qmp: QmpClient, uri: string): Promise<void> {
  await qmp.execute("migrate", { uri });
}

/** Makes a guest started with `incoming` listen; when this resolves, connections succeed. */
export async function listenForMigration(qmp: QmpClient, uri: string): Promise<void> {
  await qmp.execute("migrate-incoming", { uri });
}

/**
 * Waits until QEMU calls the migration completed. Rejects with QEMU_FAILED: it failed (QEMU's reason
 * in details), was cancelled, is not over after `timeoutMs`, or QEMU ended.
 */
export async function waitMigration(qmp: QmpClient, timeoutMs: number): Promise<MigrationInfo> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    // The last question is asked when the time is nearly over, and deserves an answer too.
    const left = Math.max(1000, deadline - Date.now());
    const info = (await qmp.execute("query-migrate", undefined, {
      timeoutMs: left,
    })) as Partial<MigrationInfo>;
    const { status = "none", "error-desc": reason } = info; // {} before the first migration
    if (status === "completed") return { ...info, status };
    if (status === "failed" || status === "cancelled") {
      const message = `QEMU says that the migration ${status}${reason === undefined ? "" : `: ${reason}`}`;
      throw new MultifdError("QEMU_FAILED", message, { status, text: reason });
    }
    if (Date.now() >= deadline) {
      const message = `the migration is still "${status}" after ${timeoutMs} ms; look at the other side`;
      throw new MultifdError("QEMU_FAILED", message, { status, timeoutMs });
    }
    await sleep(20);
  }
}
