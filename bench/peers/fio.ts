import { runWell } from "../../test/support/run.ts";
import { Program } from "./program.ts";
import type { Sample } from "./sample.ts";

/** What glibc gives fio its buffers from. */
export type FioMemory = "4 KiB pages" | "huge pages";

export interface FioJob {
  readonly rw: "read" | "write";
  readonly file: string;
  readonly bytes: number;
  readonly memory: FioMemory;
  readonly signal: AbortSignal;
}

/**
 * The limit: fio goes through a file from its start to its end with O_DIRECT, 8 requests of 1 MiB under way, and fsync
 * after a write. Its time is by its own clock, without its start.
 */
export async function fio({ rw, file, bytes, memory, signal }: FioJob): Promise<Sample> {
  const job = [
    ...["--name=limit", `--filename=${file}`, `--rw=${rw}`, `--size=${bytes}`, "--bs=1M"],
    ...["--direct=1", "--ioengine=libaio", "--iodepth=8", "--thread", "--output-format=json"],
    ...(rw === "write" ? ["--end_fsync=1"] : ["--readonly"]),
  ];
  const env = memory === "huge pages" ? { GLIBC_TUNABLES: "glibc.malloc.hugetlb=1" } : {};
  const { stdout } = await new Program("fio", job, { signal, env }).ended;
  const { jobs } = JSON.parse(stdout) as { jobs: readonly Record<"read" | "write", FioFigures>[] };
  const { io_bytes: done, runtime } = (jobs[0] as Record<"read" | "write", FioFigures>)[rw];
  return { ms: (runtime * bytes) / done };
}

interface FioFigures {
  readonly io_bytes: number;
  /** In milliseconds. */
  readonly runtime: number;
}

/** "fio-3.33" */
export async function fioVersion(): Promise<string> {
  return (await runWell("fio", ["--version"])).trim();
}
