import { randomFillSync } from "node:crypto";
import { open } from "node:fs/promises";
import { fillRam } from "../demo/ram-pattern.ts";
import type { Fill } from "./choices.ts";

const CHUNK = 2 ** 20;

/**
 * Fills the first `bytes` (a multiple of 1 MiB) of a file that is RAM and was never written.
 * Rejects with the signal's reason when it aborts.
 */
export async function fillGuest(path: string, bytes: number, fill: Fill, signal: AbortSignal): Promise<void> {
  if (fill === "mix") await fillRam(path, bytes, 1, signal);
  if (fill === "random") await fillRandom(path, bytes, signal);
}

async function fillRandom(path: string, bytes: number, signal: AbortSignal): Promise<void> {
  const chunk = Buffer.alloc(CHUNK);
  const file = await open(path, "r+");
  try {
    for (let at = 0; at < bytes; at += CHUNK) {
      signal.throwIfAborted();
      await file.write(randomFillSync(chunk), 0, CHUNK, at);
    }
  } finally {
    await file.close();
  }
}
