import { MultifdError } from "../errors.ts";

/** What an aborted signal means: its reason where that is one of our errors, else CANCELLED. */
export function cancelled(signal: AbortSignal): MultifdError {
  const { reason } = signal;
  return reason instanceof MultifdError ? reason : new MultifdError("CANCELLED", "cancelled on request");
}

/** Runs `onAbort` once when the signal aborts, at once if it has; the answer takes the listener away. */
export function whenAborted(
  signal: AbortSignal | undefined,
  onAbort: (error: MultifdError) => void,
): () => void {
  if (signal === undefined) return () => undefined;
  const listener = (): void => onAbort(cancelled(signal));
  if (signal.aborted) listener();
  else signal.addEventListener("abort", listener, { once: true });
  return () => signal.removeEventListener("abort", listener);
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw cancelled(signal);
}
