import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import { MAIN } from "../../src/entry-points.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";
import { pickAccelerator } from "./accelerator.ts";
import type { HelperCommand } from "./sample-manager.ts";
import { useScratch } from "./scratch.ts";
import { useVms, type VmWithRam } from "./vms.ts";

const MIB = 2 ** 20;
const RAM_BYTES = 128 * MIB;

export const HELPER: HelperCommand = [process.execPath, MAIN];

/** A VM with a monitor of its manager's own. */
export interface ManagedVm extends VmWithRam {
  readonly qmp: string;
}

export interface ManagedVms {
  readonly directory: string;
  file(name: string): string;
  /** A paused guest whose RAM has a known mix of pages. */
  source(binary: QemuBinary): Promise<ManagedVm>;
  /** A guest that waits for migrate-incoming. */
  destination(binary: QemuBinary): Promise<ManagedVm>;
  /** Pages in which both RAMs differ. */
  differing(a: ManagedVm, b: ManagedVm): Promise<number>;
  status(vm: QemuProcess): Promise<string>;
}

/** VMs for the tests of the sample managers. */
export function useManagedVms(): ManagedVms {
  const scratch = useScratch();
  const vms = useVms();

  async function start(binary: QemuBinary, incoming: boolean): Promise<ManagedVm> {
    const qmp = scratch.file(incoming ? "in.qmp" : "out.qmp");
    const accelerator = await pickAccelerator(binary);
    const extraArgs = ["-qmp", `unix:${qmp},server=on,wait=off`];
    return {
      ...(await vms.start(binary, { ramBytes: RAM_BYTES, accelerator, incoming, extraArgs })),
      qmp,
    };
  }

  return {
    get directory() {
      return scratch.directory;
    },
    file: scratch.file,
    async source(binary) {
      const vm = await start(binary, false);
      await fillRam(vm.ram.path, RAM_BYTES, 7);
      return vm;
    },
    destination: (binary) => start(binary, true),
    differing: async (a, b) => (await compareFiles(a.ram.path, b.ram.path)).differing,
    status: async (vm) => ((await vm.qmp.execute("query-status")) as { status: string }).status,
  };
}
