import { MultifdError } from "../errors.ts";

/** A worker that did not take its connection by then never will. */
const HANDOVER_MS = 5000;

/** Whether a connection that no worker has taken yet has waited too long, from `since` on the clock of performance.now(). */
export function isOverdue(since: number, now: number): boolean {
  return now - since > HANDOVER_MS;
}

export function neverTaken(number: number): MultifdError {
  const text = `no worker took connection ${number + 1} within ${HANDOVER_MS / 1000} s: the machine is overloaded, or a worker hangs`;
  return new MultifdError("WORKER_DIED", text, { connection: number });
}
