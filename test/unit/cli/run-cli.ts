import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { once } from "node:events";
import { text } from "node:stream/consumers";
import { MAIN } from "../../../src/entry-points.ts";

interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the built command line with all three streams as pipes. */
export function spawnCommand(...args: readonly string[]): ChildProcessWithoutNullStreams {
  return spawn(process.execPath, [MAIN, ...args]);
}

/** Runs the built command line to its end, with nothing on stdin. */
export async function runCommand(...args: readonly string[]): Promise<Finished> {
  const child = spawnCommand(...args);
  child.stdin.end();
  const [[status], stdout, stderr] = await Promise.all([
    once(child, "close"),
    text(child.stdout),
    text(child.stderr),
  ]);
  return { status, stdout, stderr };
}
