import { readFile } from "node:fs/promises";
import { MultifdError } from "../errors.ts";
import type { DeviceRecord } from "../formats/image/model.ts";
import type { Monitor } from "../qmp/monitor.ts";

/** What QMP tells of a VM without changing it. */
export interface Survey {
  /** "7.2.22", "10.0.2". */
  readonly qemuVersion: string;
  /** RunState of query-status: "running", "paused", "prelaunch", "inmigrate", "postmigrate" … */
  readonly status: string;
  readonly running: boolean;
  /** Machine type with its version, e.g. "pc-q35-7.2": the name that a migration stream carries. */
  readonly machine: string;
  /** null: QEMU was started without -uuid. */
  readonly uuid: string | null;
  readonly accelerator: string | null;
  readonly cpuModel: string | null;
  readonly cpus: number;
  readonly ramBytes: number;
  readonly devices: readonly DeviceRecord[];
  readonly commandLine: readonly string[] | null;
  /** Status of query-migrate; "none" before the first migration. */
  readonly migration: string;
}

const NO_UUID = "00000000-0000-0000-0000-000000000000";
/** query-migrate's words for a migration that is not over (qapi/migration.json, QEMU 7.2 to 10). */
const UNDER_WAY: readonly string[] = [
  "setup",
  "cancelling",
  "active",
  "postcopy-active",
  "postcopy-paused",
  "postcopy-recover",
  "postcopy-recover-setup",
  "colo",
  "pre-switchover",
  "device",
  "wait-unplug",
];

/** Asks QEMU what it is. All questions are of QEMU 7.2 and later; one that a QEMU does not know answers null. */
export async function surveyVm(monitor: Monitor): Promise<Survey> {
  const { major, minor, micro } = monitor.version;
  const ask = <T>(command: string, args?: object): Promise<T> => monitor.execute(command, args) as Promise<T>;
  const { status, running } = await ask<{ status: string; running: boolean }>("query-status");
  const machineType = await ask<string>("qom-get", { path: "/machine", property: "type" });
  const { UUID } = await ask<{ UUID: string }>("query-uuid");
  const cpus = await ask<readonly { "qom-path": string }[]>("query-cpus-fast");
  const memory = await ask<{ "base-memory": number; "plugged-memory"?: number }>("query-memory-size-summary");
  const migration = await ask<{ status?: string }>("query-migrate");
  return {
    qemuVersion: `${major}.${minor}.${micro}`,
    status,
    running,
    machine: machineType.replace(/-machine$/, ""),
    uuid: UUID === NO_UUID ? null : UUID.toLowerCase(),
    accelerator: await accelerator(monitor),
    cpuModel: cpus[0] === undefined ? null : await typeOf(monitor, cpus[0]["qom-path"]),
    cpus: cpus.length,
    ramBytes: memory["base-memory"] + (memory["plugged-memory"] ?? 0),
    devices: await devices(monitor),
    commandLine: await commandLine(monitor.pid),
    migration: migration.status ?? "none",
  };
}

export function isUnderWay(migrationStatus: string): boolean {
  return UNDER_WAY.includes(migrationStatus);
}

/** Status of query-status now. */
export async function runState(monitor: Monitor): Promise<{ status: string; running: boolean }> {
  return (await monitor.execute("query-status")) as { status: string; running: boolean };
}

/** Status of query-migrate now, "none" before the first migration. */
export async function migrationStatus(monitor: Monitor): Promise<string> {
  return ((await monitor.execute("query-migrate")) as { status?: string }).status ?? "none";
}

async function accelerator(monitor: Monitor): Promise<string | null> {
  const kvm = await orNull<{ enabled: boolean }>(monitor.execute("query-kvm"));
  return kvm === null ? null : kvm.enabled ? "kvm" : "tcg";
}

async function typeOf(monitor: Monitor, path: string): Promise<string | null> {
  return await orNull<string>(monitor.execute("qom-get", { path, property: "type" }));
}

/** What -device and device_add made; devices that the machine type brings are the machine type's. */
async function devices(monitor: Monitor): Promise<DeviceRecord[]> {
  const found: DeviceRecord[] = [];
  for (const parent of ["/machine/peripheral", "/machine/peripheral-anon"]) {
    const children = await orNull<readonly { name: string; type: string }[]>(
      monitor.execute("qom-list", { path: parent }),
    );
    for (const { name, type } of children ?? []) {
      const [, child] = /^child<(.*)>$/.exec(type) ?? [];
      if (child !== undefined) found.push({ path: `${parent}/${name}`, type: child });
    }
  }
  return found;
}

/** QEMU's arguments as it was started; null where its process is not ours to look at. */
async function commandLine(pid: number | null): Promise<readonly string[] | null> {
  if (pid === null) return null;
  const text = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "");
  return text === "" ? null : text.replace(/\0$/, "").split("\0");
}

/** Null where QEMU refuses; what is wrong with the monitor itself is thrown. */
async function orNull<T>(answer: Promise<unknown>): Promise<T | null> {
  try {
    return (await answer) as T;
  } catch (error) {
    if (error instanceof MultifdError && error.details.class !== undefined) return null;
    throw error;
  }
}
