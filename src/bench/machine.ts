import { readFile, realpath, stat, statfs } from "node:fs/promises";
import { availableParallelism, cpus, loadavg, release, totalmem } from "node:os";
import { findQemus } from "../vm/find-qemu.ts";

/** What figures depend on, and what has to be said beside them. */
export interface Machine {
  readonly cpu: string;
  /** That this process may use. */
  readonly cores: number;
  readonly memoryBytes: number;
  readonly kernel: string;
  readonly node: string;
  /** Every QEMU that can be started here, oldest first. */
  readonly qemus: readonly { readonly path: string; readonly version: string }[];
  readonly target: TargetPlace;
  /** Averages of the last 1, 5 and 15 minutes, before anything was measured. */
  readonly load: readonly number[];
}

/** Where the images lie. */
export interface TargetPlace {
  readonly directory: string;
  /** Such as "ext4"; null: not to be found out. */
  readonly fileSystem: string | null;
  /** Such as "/dev/vda1". */
  readonly device: string | null;
  /** What the maker calls the device; null for one that has no such name, as a partition of a virtual disk. */
  readonly model: string | null;
  readonly rotates: boolean | null;
  readonly freeBytes: number;
}

/** @param directory where the images will lie */
export async function describeMachine(directory: string): Promise<Machine> {
  const [target, qemus] = await Promise.all([describeTarget(directory), findQemus()]);
  return {
    cpu: cpus()[0]?.model.trim() ?? "unknown",
    cores: availableParallelism(),
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.versions.node,
    qemus: qemus.map(({ path, version }) => ({ path, version })),
    target,
    load: loadavg().map((value) => Math.round(value * 100) / 100),
  };
}

/** A line or two of it for people. */
export function machineLines(machine: Machine): string[] {
  const { cpu, cores, memoryBytes, kernel, node, target, load } = machine;
  const { directory, fileSystem, device, model } = target;
  const inMemory =
    fileSystem === "tmpfs" || fileSystem === "ramfs" ? ", which is memory: no disk is measured" : "";
  const on = device === null ? inMemory : ` on ${device}${model === null ? "" : ` (${model})`}`;
  const memory = (memoryBytes / 2 ** 30).toFixed(1);
  return [
    `${cpu}, ${cores} ${cores === 1 ? "core" : "cores"}, ${memory} GiB of memory; Linux ${kernel}, Node.js ${node}`,
    `${directory}: ${fileSystem ?? "unknown file system"}${on}; load ${load[0]?.toFixed(1)}`,
  ];
}

async function describeTarget(directory: string): Promise<TargetPlace> {
  const path = await realpath(directory);
  const [{ bavail, bsize }, mount] = await Promise.all([statfs(path), mountOf(path)]);
  const device = mount?.source.startsWith("/") ? mount.source : null;
  return {
    directory: path,
    fileSystem: mount?.type ?? null,
    device,
    ...(await describeDevice(path)),
    freeBytes: bavail * bsize,
  };
}

interface Mount {
  readonly point: string;
  readonly type: string;
  readonly source: string;
}

/** The mount with the longest path above; of two at one place the later one covers the other. */
async function mountOf(path: string): Promise<Mount | undefined> {
  const mounts = (await readFile("/proc/self/mountinfo", "utf8")).split("\n").flatMap(parseMount);
  const above = mounts.filter(({ point }) => point === "/" || path === point || path.startsWith(`${point}/`));
  return above.reduce<Mount | undefined>(
    (best, mount) => (best === undefined || mount.point.length >= best.point.length ? mount : best),
    undefined,
  );
}

/** "36 35 98:0 /root /point rw,noatime shared:1 - ext4 /dev/vda1 rw": see proc_pid_mountinfo(5). */
function parseMount(line: string): Mount[] {
  const [, point, type, source] = /^\d+ \d+ \S+ \S+ (\S+) .*? - (\S+) (\S+)/.exec(line) ?? [];
  if (point === undefined || type === undefined || source === undefined) return [];
  return [{ point: unescapeOctal(point), type, source: unescapeOctal(source) }];
}

function unescapeOctal(text: string): string {
  return text.replace(/\\(\d{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}

/** Of a partition the disk around it. File systems of several devices, or of none, have no such entry. */
async function describeDevice(path: string): Promise<Pick<TargetPlace, "model" | "rotates">> {
  const { dev } = await stat(path, { bigint: true });
  const block = `/sys/dev/block/${majorOf(dev)}:${minorOf(dev)}`;
  const disk = (await firstLine(`${block}/partition`)) === null ? block : `${await realpath(block)}/..`;
  const rotational = await firstLine(`${disk}/queue/rotational`);
  return {
    model: await firstLine(`${disk}/device/model`),
    rotates: rotational === null ? null : rotational === "1",
  };
}

/** As glibc's gnu_dev_major does. */
function majorOf(dev: bigint): bigint {
  return ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
}

function minorOf(dev: bigint): bigint {
  return (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
}

async function firstLine(path: string): Promise<string | null> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.trim() === "" ? null : text.trim();
}
