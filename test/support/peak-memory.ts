import { readFileSync } from "node:fs";
import type { HelperProcess } from "./helper-process.ts";

const LOOK_MS = 3;

/** The highest resident size in MiB that the kernel has seen of a helper; it only ever rises, so the last look counts. */
export async function peakOf(helper: HelperProcess): Promise<number> {
  let peak = 0;
  const timer = setInterval(() => {
    peak = Math.max(peak, highWater(helper.pid));
  }, LOOK_MS);
  try {
    await helper.exit();
    return peak;
  } finally {
    clearInterval(timer);
  }
}

function highWater(pid: number): number {
  try {
    const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return Math.round(Number(kib ?? 0) / 1024);
  } catch {
    return 0;
  }
}
