import { readFileSync } from "node:fs";

/** Linux counts processor time for user space in hundredths of a second (USER_HZ), whatever its own clock is. */
const TICKS_PER_SECOND = 100;
const KIB = 1024;
/** Often enough that what a process does between the last look and its end does not count. */
const PROCESS_LOOK_MS = 10;
const MEMORY_LOOK_MS = 20;

/** What a process has cost since it began. */
export interface ProcessUsage {
  /** User and system time of all its threads, also of those that have ended. */
  readonly cpuSeconds: number;
  /** The highest resident size that the kernel has seen (VmHWM). */
  readonly peakRssBytes: number;
}

/** What a process has cost up to now; null when it has ended. */
export function processUsage(pid: number): ProcessUsage | null {
  try {
    const [, kib] = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    // Behind the name, which may hold anything: state is field 3, utime and stime are fields 14 and 15.
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const cpuSeconds = (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
    // A process that is ending has given its memory back already.
    return kib === undefined ? null : { cpuSeconds, peakRssBytes: Number(kib) * KIB };
  } catch {
    return null;
  }
}

/** Follows a process, as /proc forgets it in the moment that it ends. */
export class ProcessWatch {
  readonly #pid: number;
  readonly #timer: NodeJS.Timeout;
  #last: ProcessUsage = { cpuSeconds: 0, peakRssBytes: 0 };

  constructor(pid: number) {
    this.#pid = pid;
    this.#look();
    this.#timer = setInterval(() => this.#look(), PROCESS_LOOK_MS);
  }

  /** What it has cost so far, or had when it was seen last. */
  now(): ProcessUsage {
    this.#look();
    return this.#last;
  }

  stop(): ProcessUsage {
    clearInterval(this.#timer);
    return this.now();
  }

  #look(): void {
    const seen = processUsage(this.#pid);
    if (seen === null) return;
    // The kernel's count of resident pages is rough, so that even its maximum can fall by a few.
    const peakRssBytes = Math.max(seen.peakRssBytes, this.#last.peakRssBytes);
    this.#last = { cpuSeconds: seen.cpuSeconds, peakRssBytes };
  }
}

/** Of the machine: what lies in the page cache, and what of it is not on disk yet. */
export interface PageCache {
  /** Without memory that only looks like files: tmpfs, guests' shared RAM. */
  readonly cachedBytes: number;
  readonly dirtyBytes: number;
  readonly writebackBytes: number;
}

/** As /proc/meminfo has it now. */
export function pageCache(): PageCache {
  const text = readFileSync("/proc/meminfo", "utf8");
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}: +(\\d+) kB`, "m").exec(text)?.[1] ?? 0) * KIB;
  return {
    cachedBytes: bytes("Cached") - bytes("Shmem"),
    dirtyBytes: bytes("Dirty"),
    writebackBytes: bytes("Writeback"),
  };
}

/** Follows how far the page cache grows beyond what it was. Whatever else the machine does is in it, too. */
export class PageCacheWatch {
  readonly #start: PageCache = pageCache();
  readonly #timer: NodeJS.Timeout;
  #most: PageCache = { cachedBytes: 0, dirtyBytes: 0, writebackBytes: 0 };

  constructor() {
    this.#timer = setInterval(() => this.#look(), MEMORY_LOOK_MS);
  }

  /** @returns the most that each figure was above its start */
  stop(): PageCache {
    clearInterval(this.#timer);
    this.#look();
    return this.#most;
  }

  #look(): void {
    const now = pageCache();
    const growth = (name: keyof PageCache): number =>
      Math.max(this.#most[name], now[name] - this.#start[name]);
    this.#most = {
      cachedBytes: growth("cachedBytes"),
      dirtyBytes: growth("dirtyBytes"),
      writebackBytes: growth("writebackBytes"),
    };
  }
}
