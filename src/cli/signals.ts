import { MultifdError } from "../errors.ts";

const SIGNALS = ["SIGTERM", "SIGINT", "SIGHUP"] as const;
/** Node would open a debugger on a tcp port, through which anybody on the machine gets to the guest's memory. */
const DEBUGGER = "SIGUSR1";

/** The part of `process` that delivers signals. */
export interface SignalSource {
  on(signal: (typeof SIGNALS)[number] | typeof DEBUGGER, listener: () => void): unknown;
}

/**
 * Turns the signals that ask a process to end into a cancellation. Only the first one counts: cleaning up is
 * quick and bounded, while ending in the middle of it would leave a temporary image behind. The handlers stay
 * for the life of the process, so that a signal that comes after success does not change the exit status.
 */
export function cancelOnSignals(
  cancel: (reason: MultifdError) => void,
  source: SignalSource = process,
): void {
  for (const signal of SIGNALS) {
    source.on(signal, () => cancel(new MultifdError("CANCELLED", `cancelled by ${signal}`, { signal })));
  }
  source.on(DEBUGGER, () => undefined);
}
