import { afterEach } from "vitest";
import type { Accelerator } from "../../src/demo/accelerator.ts";
import type { QmpClient } from "../../src/qmp/client.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { type QemuExit, type QemuProcess, startQemu } from "../../src/vm/qemu-process.ts";
import { useScratch } from "./scratch.ts";
import { SerialLog } from "./serial-log.ts";

export interface OperatorDisk {
  readonly path: string;
  /** "raw" if absent. */
  readonly format?: "raw" | "qcow2";
  /** "sata" if absent, which on the old "pc" machine is IDE. */
  readonly bus?: "sata" | "virtio";
}

export interface OperatorVmOptions {
  readonly binary: QemuBinary;
  readonly ramBytes: number;
  /** RAM is this file, shared; anonymous memory if absent. */
  readonly ramPath?: string;
  /**
   * "tcg" if absent: a BIOS, a boot sector in real mode and a Linux are each several times quicker under it than under
   * a KVM that is itself in a virtual machine, and no slower to save. Source and destination need the same.
   */
  readonly accelerator?: Accelerator;
  /** "q35" if absent. Source and destination need the same one. */
  readonly machine?: string;
  readonly uuid?: string;
  /** In the order in which the BIOS numbers them; it boots from the first. QEMU calls them disk0, disk1, … */
  readonly disks?: readonly OperatorDisk[];
  /** "running" if absent. "incoming" waits for a migrate-incoming, and for a cont after it. */
  readonly start?: "running" | "paused" | "incoming";
  readonly extraArgs?: readonly string[];
}

/** A VM as somebody started it who knows nothing of us, with a monitor that nobody is connected to. */
export interface OperatorVm {
  /** The operator's monitor: a QMP socket for the program under test. */
  readonly monitorPath: string;
  /** The test's own monitor, which does not disturb the other one. */
  readonly qmp: QmpClient;
  readonly pid: number;
  readonly exited: Promise<QemuExit>;
  readonly serial: SerialLog;
  /** For what takes a QEMU of ours, such as Lab.save. */
  readonly process: QemuProcess;
  /** "running", "paused", "postmigrate", …: RunState of QEMU's qapi/run-state.json. */
  status(): Promise<string>;
}

export interface OperatorVms {
  start(options: OperatorVmOptions): Promise<OperatorVm>;
  /** Path of a name in a directory that lasts as long as the test. */
  file(name: string): string;
}

/** VMs for the tests of one file; what a test starts is gone when that test ends. */
export function useOperatorVms(): OperatorVms {
  const scratch = useScratch();
  const started: QemuProcess[] = [];
  let number = 0;
  afterEach(async () => {
    await Promise.all(started.splice(0).map((vm) => vm.kill()));
  });

  return {
    file: scratch.file,
    async start(options) {
      const name = `vm${number++}`;
      const monitorPath = scratch.file(`${name}.qmp`);
      const serial = new SerialLog(scratch.file(`${name}.serial`));
      const monitor = ["-qmp", `unix:${monitorPath.replaceAll(",", ",,")},server=on,wait=off`];
      const args = [...operatorArgs(options), ...serial.args, ...monitor];
      const process = await startQemu({ binary: options.binary, args });
      started.push(process);
      const { qmp, pid, exited } = process;
      return { monitorPath, qmp, pid, exited, serial, process, status: () => status(qmp) };
    },
  };
}

/** QEMU's arguments, monitors and serial port aside: those that a restore of this VM needs too, whatever `start` says. */
export function operatorArgs(options: OperatorVmOptions): string[] {
  const { ramBytes, ramPath, accelerator = "tcg", machine = "q35", uuid, disks = [], start } = options;
  return [
    ...["-machine", ramPath === undefined ? machine : `${machine},memory-backend=ram`],
    ...["-accel", accelerator, "-m", `${ramBytes}B`, "-nodefaults", "-display", "none"],
    ...(ramPath === undefined ? [] : ["-object", ramFile(ramPath, ramBytes)]),
    ...(uuid === undefined ? [] : ["-uuid", uuid]),
    ...disks.flatMap(diskArgs),
    ...(start === "paused" || start === "incoming" ? ["-S"] : []),
    ...(start === "incoming" ? ["-incoming", "defer"] : []),
    ...(options.extraArgs ?? []),
  ];
}

function ramFile(path: string, bytes: number): string {
  return `memory-backend-file,id=ram,size=${bytes}B,share=on,mem-path=${path.replaceAll(",", ",,")}`;
}

/** With QEMU's file locks, unlike guestArgs: an operator has them. */
function diskArgs({ path, format = "raw", bus = "sata" }: OperatorDisk, number: number): string[] {
  const id = `disk${number}`;
  const device = bus === "virtio" ? "virtio-blk-pci" : `ide-hd,bus=ide.${number}`;
  return [
    ...["-drive", `file=${path.replaceAll(",", ",,")},format=${format},if=none,id=${id}`],
    ...["-device", `${device},drive=${id},bootindex=${number}`],
  ];
}

async function status(qmp: QmpClient): Promise<string> {
  return ((await qmp.execute("query-status")) as { status: string }).status;
}
