import { readFileSync } from "node:fs";
import type { HelperProcess } from "./helper-process.ts";

const LOOK_MS = 3;
/** Linux counts processor time for user space in hundredths of a second. */
const TICK_MS = 10;

/** What a process has cost so far; both figures only ever rise. */
export interface Cost {
  /** The highest resident size that the kernel has seen. */
  readonly peakMib: number;
  /** Processor time of all threads: unlike the time of day it does not depend on what else the machine does. */
  readonly cpuMs: number;
}

/** Waits for a helper's end and tells what it has cost, as last seen before. */
export async function costOf(helper: HelperProcess): Promise<Cost> {
  let cost: Cost = { peakMib: 0, cpuMs: 0 };
  const timer = setInterval(() => {
    cost = look(helper.pid) ?? cost;
  }, LOOK_MS);
  try {
    await helper.exit();
    return cost;
  } finally {
    clearInterval(timer);
  }
}

/** The highest resident size of a helper in MiB, when it has ended. */
export async function peakOf(helper: HelperProcess): Promise<number> {
  return (await costOf(helper)).peakMib;
}

function look(pid: number): Cost | null {
  try {
    const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    // Behind the name, which may hold anything: state is field 3, utime and stime are fields 14 and 15.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    const ticks = Number(fields[11]) + Number(fields[12]);
    // A process that is ending has given its memory back already.
    return kib === undefined ? null : { peakMib: Math.round(Number(kib) / 1024), cpuMs: ticks * TICK_MS };
  } catch {
    return null;
  }
}
