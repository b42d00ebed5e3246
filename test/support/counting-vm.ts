import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { expect } from "vitest";
import type { Monitor } from "../../src/qmp/monitor.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { counterByMonitor, counterOnDisk, countingDisk } from "./counting-guest.ts";
import type { OperatorDisk, OperatorVm, OperatorVmOptions, OperatorVms } from "./operator-vm.ts";

const MIB = 2 ** 20;
const run = promisify(execFile);

export const COUNTING_RAM: number = 64 * MIB;

/** What every counting VM here is: two disks, one raw and one qcow2, that get each count. */
export function countingSetup(binary: QemuBinary, disks: readonly OperatorDisk[]): OperatorVmOptions {
  return { binary, ramBytes: COUNTING_RAM, disks };
}

/** Its disks, before it was ever started. */
export async function countingDisks(vms: OperatorVms): Promise<readonly [OperatorDisk, OperatorDisk]> {
  const [raw, qcow2] = [vms.file("first.raw"), vms.file("second.qcow2")];
  await writeFile(raw, countingDisk({ disks: 2, lineEvery: 16 }));
  await run("qemu-img", ["create", "-q", "-f", "qcow2", qcow2, `${MIB}`]);
  return [{ path: raw }, { path: qcow2, format: "qcow2", bus: "virtio" }];
}

/** Fresh overlays over these disks, for a VM of its own. */
export async function overlaysOf(disks: readonly OperatorDisk[], name: string): Promise<OperatorDisk[]> {
  const overlays = disks.map((disk) => ({ ...disk, path: `${disk.path}.${name}`, format: "qcow2" as const }));
  for (const [index, { path }] of overlays.entries()) {
    const { path: base, format = "raw" } = disks[index] as OperatorDisk;
    await run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", format, path]);
  }
  return overlays;
}

/** Something is written to a qcow2 that no VM uses. */
export async function writeSector(path: string): Promise<void> {
  await run("qemu-img", ["bench", "-w", "-c", "1", "-f", "qcow2", path]);
}

export async function startCounting(vms: OperatorVms, options: OperatorVmOptions): Promise<OperatorVm> {
  const vm = await vms.start(options);
  await vm.serial.waitForLine(/^count 00000080$/);
  return vm;
}

/** The guest goes on: it told counts after this call. */
export async function expectCounting(vm: OperatorVm): Promise<void> {
  expect(await vm.status()).toBe("running");
  const from = (await vm.serial.lines()).length;
  await vm.serial.waitForLine(/^count [0-9a-f]{8}$/, { from: from + 1, timeoutMs: 10_000 });
}

/** At any instant memory >= first disk >= second disk >= memory - 1. */
export async function expectOneMoment(qmp: Monitor, disks: readonly OperatorDisk[]): Promise<number> {
  const memory = await counterByMonitor(qmp);
  const onDisks = await Promise.all(disks.map(({ path, format }) => counterOnDisk(path, format)));
  const counts = [memory, ...onDisks];
  expect(counts).toEqual(counts.toSorted((a, b) => b - a));
  expect(counts.at(-1)).toBeGreaterThanOrEqual(memory - 1);
  return memory;
}

/** The files that the VM's disks write to now. */
export async function diskFiles(qmp: Monitor): Promise<string[]> {
  const blocks = (await qmp.execute("query-block")) as readonly {
    inserted?: { image: { filename: string } };
  }[];
  return blocks.flatMap(({ inserted }) => (inserted === undefined ? [] : [inserted.image.filename]));
}
