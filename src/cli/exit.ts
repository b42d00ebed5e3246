import { constants } from "node:os";
import { MultifdError } from "../errors.ts";

/** How long a reader of stdout that has fallen behind may take to fetch the last events. */
const FLUSH_MS = 5_000;
/** How long handles that should be closed by now may keep the process alive. */
const LINGER_MS = 1_000;

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
 * Ends the process with this status: by itself as soon as stdout is flushed and nothing is left to do,
 * and by force when a reader never comes back or a stray handle is still open. Nobody waits for ever.
 */
export function leave(status: number): void {
  process.exitCode = status;
  const patience = process.stdout.writableLength > 0 ? FLUSH_MS : LINGER_MS;
  setTimeout(() => process.exit(status), patience).unref();
}
