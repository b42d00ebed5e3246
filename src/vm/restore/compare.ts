import type { Log } from "../../control/options.ts";
import type { ImageReport } from "../../control/reports.ts";
import { MultifdError } from "../../errors.ts";
import type { RamBlock } from "../../formats/migration/summary.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { type RamBlockNow, ramBlocks } from "../ram-blocks.ts";
import type { Survey } from "../survey.ts";

export interface Comparison {
  /** How messages name the destination. */
  readonly place: string;
  /** The UUID that the destination is to have: that of the image unless it is a clone. null: none; undefined: unknown. */
  readonly uuid: string | null | undefined;
  readonly force: boolean;
}

/**
 * Compares a destination with the VM in the image, before anything is loaded: QEMU itself finds most differences only
 * when all RAM was sent, and then says little.
 * @throws MultifdError VM_MISMATCH naming every difference
 */
export async function compareVm(
  image: ImageReport,
  survey: Survey,
  monitor: Monitor,
  { place, uuid, force }: Comparison,
  log: Log,
): Promise<void> {
  const vm = image.metadata?.vm ?? null;
  const blocks = await ramBlocks(monitor);
  const differences = [
    difference("machine type", machineOf(image), survey.machine, "-machine"),
    uuid === undefined ? null : difference("UUID", uuid ?? "none", survey.uuid ?? "none", "-uuid"),
    difference("accelerator", vm?.accelerator ?? null, survey.accelerator, "-accel"),
    difference("CPU model", vm?.cpuModel ?? null, survey.cpuModel, "-cpu"),
    difference("number of CPUs", vm?.cpus ?? null, survey.cpus, "-smp"),
    difference("RAM", vm?.ramBytes ?? null, survey.ramBytes, "-m"),
    ...ramDifferences(blocksOf(image), blocks),
    ...deviceDifferences(vm?.devices ?? [], survey.devices),
  ].filter((text) => text !== null);
  noteOlderQemu(image, survey, log);
  if (differences.length === 0) return;
  const text = `${place} is not the VM in ${image.path}: ${differences.join("; ")}`;
  if (!force) {
    throw new MultifdError(
      "VM_MISMATCH",
      `${text}; start it as the saved one was started (inspect shows how), or use --force`,
      {
        differences: differences.join("; "),
      },
    );
  }
  log.warn({}, `${text}; going on because of --force`);
}

function machineOf(image: ImageReport): string | null {
  return image.format === "mapped-ram" ? image.machine : (image.destination?.machine ?? null);
}

function blocksOf(image: ImageReport): readonly RamBlock[] {
  return image.format === "mapped-ram" ? image.blocks : (image.metadata?.ramBlocks ?? []);
}

function difference<T>(what: string, saved: T | null, found: T | null, option: string): string | null {
  if (saved === null || found === null || saved === found) return null;
  return `its ${what} is ${found} and was ${saved} (${option})`;
}

/** Blocks that QEMU sizes anew as it loads differ without harm: firmware tables and option ROMs. */
const RESIZABLE = /^\/rom@|\.rom$/;

function ramDifferences(saved: readonly RamBlock[], found: ReadonlyMap<string, RamBlockNow>): string[] {
  if (found.size === 0) return [];
  const lacking = saved.filter(({ name }) => !found.has(name));
  const other = saved.filter(({ name, usedLength }) => {
    const length = found.get(name)?.usedLength;
    return length !== undefined && length !== usedLength && !RESIZABLE.test(name);
  });
  return [
    ...lacking.map(({ name }) => `it has no RAMBlock ${name}`),
    ...other.map(
      ({ name, usedLength }) =>
        `its RAMBlock ${name} has ${found.get(name)?.usedLength} bytes and had ${usedLength}`,
    ),
  ];
}

type Devices = readonly { readonly path: string; readonly type: string }[];

/** Types only: where a device has no id, its path depends on the order of the arguments. */
function deviceDifferences(saved: Devices, found: Devices): string[] {
  const [was, is] = [counts(saved), counts(found)];
  const types = [...new Set([...was.keys(), ...is.keys()])];
  return types
    .filter((type) => (was.get(type) ?? 0) !== (is.get(type) ?? 0))
    .map((type) => `it has ${is.get(type) ?? 0} devices ${type} and had ${was.get(type) ?? 0} (-device)`);
}

function counts(devices: Devices): Map<string, number> {
  const found = new Map<string, number>();
  for (const { type } of devices) found.set(type, (found.get(type) ?? 0) + 1);
  return found;
}

/** QEMU keeps streams of older versions readable, not of newer ones. */
function noteOlderQemu(image: ImageReport, survey: Survey, log: Log): void {
  const saved = image.metadata?.qemuVersion ?? null;
  if (saved === null || !isOlder(survey.qemuVersion, saved)) return;
  log.warn(
    {},
    `${image.path} was saved by QEMU ${saved}, and ${survey.qemuVersion} is older: it may not know all of it`,
  );
}

function isOlder(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split(".").map(Number)) as [number[], number[]];
  return (a[0] ?? 0) < (b[0] ?? 0) || (a[0] === b[0] && (a[1] ?? 0) < (b[1] ?? 0));
}
