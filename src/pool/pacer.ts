import { setTimeout as sleep } from "node:timers/promises";
import type { ControlBlock } from "./control-block.ts";

/** Waits for this transfer's turn under a rate limit that all workers of a run share. */
export async function paced(control: ControlBlock, bytes: number, rate: number | null): Promise<void> {
  if (rate === null) return;
  const now = performance.timeOrigin * 1000 + performance.now() * 1000;
  const turn = control.reserveTurn(Math.round(now), Math.ceil((bytes / rate) * 1e6));
  const waitMs = (turn - now) / 1000;
  if (waitMs > 1) await sleep(waitMs);
}

/**
 * How much may go in one turn: no more than a quarter of a second's worth. A whole block at a low rate would take so
 * long that it looks like a stall, and it would be sent at full speed after the wait.
 */
export function turnBytes(rate: number | null): number {
  return rate === null ? Number.POSITIVE_INFINITY : Math.max(1, Math.floor(rate / 4));
}
