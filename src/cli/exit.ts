import { constants } from "node:os";
import { MultifdError } from "../errors.ts";
import type { QemuExit } from "../vm/restore/launch.ts";

/** How long a reader of stdout that has fallen behind may take to fetch the last events. */
const FLUSH_MS = 5_000;

/** What the process is to end with when nothing failed: that of the QEMU that it was, if it was one. */
export interface ExitStatus {
  value: number;
}

/** The exit status of a process as a shell tells it. */
export function statusOfExit({ code, signal }: QemuExit): number {
  return signal === null ? (code ?? 1) : 128 + constants.signals[signal];
}

/** The exit status that belongs to whatever a command threw. */
export function exitStatusOf(error: unknown): number {
  if (!(error instanceof MultifdError)) return 1;
  const signal = error.details.signal;
  if (error.code === "CANCELLED" && typeof signal === "string") {
    const number = constants.signals[signal as NodeJS.Signals];
    if (number !== undefined) return 128 + number;
  }
  return error.exitStatus;
}

/**
 * Ends the process with this status as soon as stdout is flushed, and by force when its reader never comes back. Not
 * by running out of work: Node would take the signal handlers away first, and a SIGTERM in that moment would turn a
 * finished save into a death by signal.
 */
export function leave(status: number): void {
  process.exitCode = status;
  const exit = (): never => process.exit(status);
  if (process.stdout.writableLength === 0) exit();
  process.stdout.write("", exit);
  setTimeout(exit, FLUSH_MS);
}
