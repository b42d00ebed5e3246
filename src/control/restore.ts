import type { CompletedEvent } from "./events.ts";
import type { RestoreOptions } from "./options.ts";
import { runRestore } from "./restore-run.ts";

/**
 * Feeds an image to a QEMU that waits for a migration at `connect`.
 * @returns once the destination has read everything; whether it accepted it, QMP tells
 * @throws MultifdError; no damaged byte was sent, and a load that had begun ends in QEMU with an error
 */
export function restore(options: RestoreOptions): Promise<CompletedEvent> {
  return runRestore(options);
}
