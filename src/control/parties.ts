import { setTimeout as sleep } from "node:timers/promises";
import type { ControlBlock } from "../pool/control-block.ts";
import type { Reception } from "./reception.ts";

const LOOK_MS = 5;

/**
 * Finds out who takes part in a migration's barriers, as soon as somebody waits there. When main has come to its first
 * barrier, QEMU has connected all channels and sent each one's first SYNC (multifd_send_sync_main, QEMU 7.2 to 10): whoever
 * is not accepted yet waits in the listening socket's backlog.
 */
export async function countParties(
  control: ControlBlock,
  reception: Reception,
  listener: { drainBacklog(): Promise<void> },
): Promise<void> {
  await control.until(() => control.giveUp || control.finished || mainIsWaiting(control));
  if (control.giveUp || control.finished) return;
  await listener.drainBacklog();
  while (!control.giveUp && !control.finished && reception.waitsForNames) await sleep(LOOK_MS);
  control.setParties(reception.arrivals.filter(({ ignored }) => !ignored).length);
}

function mainIsWaiting(control: ControlBlock): boolean {
  for (let connection = 0; connection < control.connections; connection++) {
    if (control.identity(connection) === "main") return control.barriersReached(connection) > 0;
  }
  return false;
}
