import { expect } from "vitest";
import type { Monitor } from "../../src/qmp/monitor.ts";

/** What a save must not change of a VM: the settings of its migrations. */
export async function settingsOf(qmp: Monitor): Promise<unknown> {
  return {
    capabilities: await qmp.execute("query-migrate-capabilities"),
    parameters: await qmp.execute("query-migrate-parameters"),
  };
}

/** Waits until the VM is in this RunState, or fails with the one that it is in. */
export async function untilStatus(qmp: Monitor, status: string, timeoutMs = 20_000): Promise<void> {
  const now = async (): Promise<string> => ((await qmp.execute("query-status")) as { status: string }).status;
  await expect.poll(now, { timeout: timeoutMs, interval: 20 }).toBe(status);
}
