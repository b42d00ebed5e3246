import { existsSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { commandRescue } from "../../qmp/rescue-pipe.ts";

/** Runs a command whatever QEMU is busy with. Where its refusal can be heard it rejects with that. */
type Urgent = (command: string, args?: object) => Promise<void>;

const ANSWER_MS = 2000;
const RETRY_MS = 25;
/** A closed connection pauses QEMU by itself in less; after that it is told to give its connection up. */
const PAUSE_AFTER_MS = 200;
const PATIENCE_MS = 10_000;

/** Over a monitor that was connected before QEMU's main loop could hang. */
export function overMonitor(monitor: Monitor): Urgent {
  return async (command, args) => {
    await monitor.execute(command, args, { outOfBand: true, timeoutMs: ANSWER_MS });
  };
}

/** Over the rescue pipe at `path`; without one nothing happens. */
export function overPipe(path: string): Urgent {
  return async (command, args) => {
    commandRescue(path, command, args);
  };
}

/**
 * Has a QEMU in the middle of a postcopy listen at `socket` for a helper that goes on. One whose helper is gone has paused
 * the migration by itself; one whose helper hangs is made to. `migrate-recover` and `migrate-pause` work out of band, also
 * while QEMU's main loop waits for a page.
 * @throws MultifdError QEMU_FAILED with QEMU's refusal
 */
export async function listenAgain(urgent: Urgent, socket: string): Promise<void> {
  const started = Date.now();
  for (;;) {
    const refusal = await urgent("migrate-recover", { uri: `unix:${socket}` }).catch(
      (error: unknown) => error,
    );
    await sleep(RETRY_MS);
    if (existsSync(socket)) return;
    const elapsed = Date.now() - started;
    if (elapsed > PATIENCE_MS) throw refusal ?? silent(socket);
    if (elapsed > PAUSE_AFTER_MS) await urgent("migrate-pause").catch(() => undefined);
  }
}

function silent(socket: string): MultifdError {
  const text = `QEMU was told to listen for the rest of its RAM and does not: no socket ${socket} after ${PATIENCE_MS / 1000} s`;
  return new MultifdError("QEMU_FAILED", text, { socket });
}
