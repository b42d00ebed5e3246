import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { Program } from "../peers/program.ts";

/** Often enough for a run of a second, and not in step with anything that ticks. */
const HERTZ = 1999;

const BEGUN_MS = 500;

/** One sample: a core was here for 1/HERTZ seconds. */
export interface Sampled {
  readonly command: string;
  readonly pid: number;
  /** Functions, the innermost first, each with the file that it is from. */
  readonly frames: readonly { readonly name: string; readonly file: string }[];
}

export const SECONDS_A_SAMPLE: number = 1 / HERTZ;

/** Has perf look at all cores while `work` runs. @param file of perf's, which is left there */
export async function recorded<T>(file: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  await rm(file, { force: true });
  const perf = new Program(
    "perf",
    ["record", "-a", "-e", "cpu-clock", "-F", String(HERTZ), "-g", "-q", "-o", file],
    { signal },
  );
  try {
    // It says nothing when it has begun; what it cannot do it says at once.
    await Promise.race([perf.ended, sleep(BEGUN_MS)]);
    return await work();
  } finally {
    await perf.stop();
  }
}

/** What perf has recorded, sample by sample. */
export async function* samplesOf(file: string): AsyncGenerator<Sampled, void, undefined> {
  const args = ["script", "-i", file, "-F", "comm,pid,tid,ip,sym,dso"];
  const script = spawn("perf", args, { stdio: ["ignore", "pipe", "ignore"] });
  await once(script, "spawn");
  let head: { command: string; pid: number } | null = null;
  let frames: { name: string; file: string }[] = [];
  for await (const line of createInterface(script.stdout)) {
    const [, command, pid] = /^(\S.*?)\s+(\d+)\/\d+/.exec(line) ?? [];
    if (command !== undefined) [head, frames] = [{ command, pid: Number(pid) }, []];
    const [, name, from] = /^\s+[0-9a-f]+ (.+) \(([^()]*)\)$/.exec(line) ?? [];
    if (name !== undefined) frames.push({ name, file: from ?? "" });
    if (line.trim() !== "" || head === null) continue;
    yield { ...head, frames };
    head = null;
  }
  if (head !== null) yield { ...head, frames };
}
