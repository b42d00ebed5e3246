import { setTimeout as sleep } from "node:timers/promises";
import { throwIfAborted } from "../../control/cancellation.ts";
import type { DestinationNeeds } from "../../control/reports.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { QemuWatch } from "../qemu-watch.ts";
import { applySettings, readSettings, type Settings } from "../settings.ts";

/** Sets QEMU up for what the image is and makes it listen at `uri`; when this resolves, connections succeed. */
export async function listenForImage(monitor: Monitor, needs: DestinationNeeds, uri: string): Promise<void> {
  await listen(monitor, settingsFor(needs), uri);
}

/** Sets QEMU up and starts its migrate-incoming. */
export async function listen(monitor: Monitor, settings: Settings, uri: string): Promise<void> {
  await applySettings(monitor, await readSettings(monitor), settings);
  await startIncoming(monitor, uri);
}

/** Makes a QEMU that is set up listen, which it does once in its life. Throws VM_STATE when it has done so. */
export async function startIncoming(monitor: Monitor, uri: string): Promise<void> {
  try {
    // A load that fails then leaves a QEMU that can say why (9.1 and later).
    await monitor.execute("migrate-incoming", { uri, "exit-on-error": false });
  } catch (error) {
    if (!isUnknownArgument(error)) throw usedUp(error, monitor);
    await monitor.execute("migrate-incoming", { uri }).catch((second: unknown) => {
      throw usedUp(second, monitor);
    });
  }
}

/** QEMU listens only once: what it says to a second time, in 7.2 and in 10. */
function usedUp(error: unknown, monitor: Monitor): unknown {
  const text = error instanceof MultifdError ? String(error.details.text) : "";
  if (!/already been started|Illegal migration incoming state/.test(text)) return error;
  const sentence = `the QEMU at ${monitor.place} does not wait for an image any more: its migrate-incoming was used already; start it anew`;
  return new MultifdError("VM_STATE", sentence, { text }, error);
}

function settingsFor(needs: DestinationNeeds): Settings {
  const { multifd, multifdChannels, multifdCompression, capabilities } = needs;
  return {
    capabilities: {
      events: true,
      multifd,
      ...Object.fromEntries(capabilities.map((name) => [name, true])),
    },
    parameters: multifd
      ? { "multifd-channels": multifdChannels, "multifd-compression": multifdCompression }
      : {},
  };
}

function isUnknownArgument(error: unknown): boolean {
  return error instanceof MultifdError && /exit-on-error.*unexpected/.test(String(error.details.text));
}

const POLL_MS = 50;
/** A QEMU that loads device state does not answer; nothing of it takes long, however much RAM there is. */
const ANSWER_MS = 120_000;

/**
 * Waits, once everything was delivered, until QEMU calls the migration completed.
 * @throws MultifdError QEMU_FAILED with QEMU's reason, CANCELLED
 */
export async function waitIncoming(monitor: Monitor, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    throwIfAborted(signal);
    const info = await incomingInfo(monitor);
    if (info.status === "completed") return;
    if (info.status === "failed") throw refused(info["error-desc"]);
    await sleep(POLL_MS);
  }
}

interface IncomingInfo {
  readonly status?: string;
  readonly "error-desc"?: string;
}

async function incomingInfo(monitor: Monitor, timeoutMs: number = ANSWER_MS): Promise<IncomingInfo> {
  return (await monitor.execute("query-migrate", undefined, { timeoutMs })) as IncomingInfo;
}

/** When QEMU gave up, our side sees closed connections: QEMU's word is the reason then. */
export async function reasonFor(error: unknown, monitor: Monitor, qemu: QemuWatch): Promise<unknown> {
  if (!(error instanceof MultifdError) || error.exitStatus !== 3 || qemu.ended) return error;
  const info = await incomingInfo(monitor, 2000).catch(() => null);
  return info?.status === "failed" ? refused(info["error-desc"]) : error;
}

function refused(reason: string | undefined): MultifdError {
  const why = reason ?? "it does not say why; look at its stderr";
  return new MultifdError("QEMU_FAILED", `the destination QEMU could not load the image: ${why}`, {
    text: reason,
  });
}
