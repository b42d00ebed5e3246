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
