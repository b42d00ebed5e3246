import { access, constants, readFile, stat, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { MultifdError } from "../errors.ts";

/** Where guest RAM can live in a file, and why there. `room` is in bytes. */
export interface RamDirectory {
  readonly directory: string;
  readonly inMemory: boolean;
  readonly room: number;
  /** One clause for people: "/dev/shm: tmpfs, 11.2 GiB free". */
  readonly reason: string;
}

export interface Candidate extends RamDirectory {
  /** Set when it cannot be used, whatever its room. */
  readonly unusable?: string;
}

const TMPFS_MAGIC = 0x01021994;
const GIB = 2 ** 30;
/** Memory that the machine keeps for everything that is not the guest's RAM file. */
const MEMORY_RESERVE = 256 * 2 ** 20;

/**
 * A directory with room for `bytes` of guest RAM: in memory if possible, else on a disk.
 * Room is checked because QEMU would not: a full tmpfs (a container's /dev/shm has 64 MiB) kills it
 * with SIGBUS when the guest touches the page that does not fit. `directory` as given allows no other.
 * Rejects with NO_SPACE, naming every place tried and its room; with IO where the given one cannot be used at all.
 */
export async function pickRamDirectory(bytes: number, directory?: string): Promise<RamDirectory> {
  const candidates = await examinePlaces(directory === undefined ? defaultPlaces() : [directory]);
  return choose(candidates, bytes);
}

/** What these directories are and how much room they have, in the same order. */
export async function examinePlaces(places: readonly string[]): Promise<Candidate[]> {
  const available = await availableMemory();
  return await Promise.all(places.map((place) => examine(place, available)));
}

/** The choice itself: the first in memory with room, else the first with room. */
export function choose(candidates: readonly Candidate[], bytes: number): RamDirectory {
  const fitting = candidates.filter(({ unusable, room }) => unusable === undefined && room >= bytes);
  const chosen = fitting.find(({ inMemory }) => inMemory) ?? fitting[0];
  if (chosen !== undefined) return chosen;
  throw noRoom(candidates, bytes, "of guest RAM");
}

/** @param what what the bytes are, such as "of guest RAM" */
export function noRoom(candidates: readonly Candidate[], bytes: number, what: string): MultifdError {
  const [named, ...others] = candidates;
  if (named?.unusable !== undefined && others.length === 0) {
    return new MultifdError("IO", `${named.reason}; name a directory that can be written to`);
  }
  const rooms = candidates.map(({ reason }) => reason).join("; ");
  const text = `no directory has room for ${gib(bytes)} ${what} (${rooms}); free some space or use less RAM`;
  return new MultifdError("NO_SPACE", text, { bytes });
}

/**
 * Bytes that can be put into tmpfs before this machine, or the control group (a container's limit)
 * that we run in, is out of memory.
 */
async function availableMemory(): Promise<number> {
  const meminfo = await readFile("/proc/meminfo", "utf8");
  const ofMachine = Number(/^MemAvailable: +(\d+) kB/m.exec(meminfo)?.[1] ?? 0) * 1024;
  const limits = await Promise.all([
    remaining("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    remaining("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
  ]);
  return Math.max(0, Math.min(ofMachine, ...limits) - MEMORY_RESERVE);
}

/** Infinity where no limit is set: no such file, or the word "max". */
async function remaining(limitFile: string, usageFile: string): Promise<number> {
  const read = async (file: string): Promise<number> => Number.parseInt(await readFile(file, "utf8"), 10);
  const left = await read(limitFile).catch(() => Number.NaN);
  const used = await read(usageFile).catch(() => 0);
  return Number.isNaN(left) ? Number.POSITIVE_INFINITY : left - used;
}

function defaultPlaces(): string[] {
  const places = ["/dev/shm", process.env.XDG_RUNTIME_DIR, tmpdir(), "/tmp", "/var/tmp"];
  return [...new Set(places.filter((place) => place !== undefined && place !== ""))] as string[];
}

async function examine(directory: string, availableMemory: number): Promise<Candidate> {
  try {
    if (!(await stat(directory)).isDirectory()) throw new Error("not a directory");
    await access(directory, constants.W_OK | constants.X_OK);
    const { type, blocks, bavail, bsize } = await statfs(directory);
    const inMemory = type === TMPFS_MAGIC;
    const free = inMemory && blocks === 0 ? Number.POSITIVE_INFINITY : bavail * bsize; // tmpfs without a limit
    const room = inMemory ? Math.min(free, availableMemory) : free;
    const kind = inMemory ? "tmpfs" : "disk";
    return { directory, inMemory, room, reason: `${directory}: ${kind}, ${gib(room)} free` };
  } catch (error) {
    const unusable = error instanceof Error ? error.message : String(error);
    return { directory, inMemory: false, room: 0, unusable, reason: `${directory}: ${unusable}` };
  }
}

function gib(bytes: number): string {
  return bytes < GIB ? `${Math.floor(bytes / 2 ** 20)} MiB` : `${(bytes / GIB).toFixed(1)} GiB`;
}
