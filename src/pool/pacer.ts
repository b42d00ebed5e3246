import { setTimeout as sleep } from "node:timers/promises";
import type { ControlBlock } from "./control-block.ts";

/** A run that is given up must not wait for the turn of a slow rate. */
const LOOK_MS = 100;

/** Waits for this transfer's turn under a rate limit that all workers of a run share, or until the run is given up. */
export async function paced(control: ControlBlock, bytes: number, rate: number | null): Promise<void> {
  if (rate === null) return;
  const turn = control.reserveTurn(nowMicros(), Math.ceil((bytes / rate) * 1e6));
  for (;;) {
    const waitMs = (turn - nowMicros()) / 1000;
    if (waitMs <= 1 || control.giveUp) return;
    await sleep(Math.min(waitMs, LOOK_MS));
  }
}

/** Whether the rate limit holds this run back: then it is no wonder that no byte moves. */
export function isPacing(control: ControlBlock): boolean {
  return control.reservedUntil > nowMicros();
}

/** A clock that all threads share. */
function nowMicros(): number {
  return Math.round((performance.timeOrigin + performance.now()) * 1000);
}

/**
 * How much may go in one turn: no more than a quarter of a second's worth. A whole block at a low rate would take so
 * long that it looks like a stall, and it would be sent at full speed after the wait.
 */
export function turnBytes(rate: number | null): number {
  return rate === null ? Number.POSITIVE_INFINITY : Math.max(1, Math.floor(rate / 4));
}
