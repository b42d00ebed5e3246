import { compareFiles } from "../../src/demo/ram-pattern.ts";
import type { Monitor } from "../../src/qmp/monitor.ts";
import { finishFileRestore, prepareFileRestore } from "../../src/vm/engine-file/restore.ts";
import {
  type FileSaved,
  type FileSaveOptions,
  finishFileSave,
  type PreparedFileSave,
  prepareFileSave,
} from "../../src/vm/engine-file/save.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";
import type { Settings } from "../../src/vm/settings.ts";
import { fdMonitorArgs, passingMonitor } from "./fd-monitor.ts";
import { type Guest, type GuestSetup, Lab } from "./lab.ts";

const MIGRATION_MS = 120_000;

/** A guest whose monitor passes descriptors. */
export interface FileGuest extends Guest {
  readonly monitor: Monitor;
}

/** Real VMs that save to mapped-ram files by themselves, and load them. */
export class FileLab {
  readonly lab: Lab;
  #monitors = 0;

  private constructor(lab: Lab) {
    this.lab = lab;
  }

  static async open(): Promise<FileLab> {
    return new FileLab(await Lab.open());
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  file(name: string): string {
    return this.lab.file(name);
  }

  /** A paused guest with a known mix of pages. */
  async source(setup: GuestSetup): Promise<FileGuest> {
    const path = this.file(`fd-${this.#monitors++}`);
    const extraArgs = [...(setup.extraArgs ?? []), ...fdMonitorArgs(path)];
    const guest = await this.lab.source({ ...setup, extraArgs });
    return { ...guest, monitor: passingMonitor(guest.vm, path) };
  }

  /** A guest with empty RAM that waits for migrate-incoming. */
  async destination(setup: GuestSetup): Promise<FileGuest> {
    const path = this.file(`fd-${this.#monitors++}`);
    const extraArgs = [...(setup.extraArgs ?? []), ...fdMonitorArgs(path)];
    const guest = await this.lab.waiting({ ...setup, extraArgs });
    return { ...guest, monitor: passingMonitor(guest.vm, path) };
  }

  /** A whole save, as what drives QEMU does it. */
  async save(
    { vm, monitor }: FileGuest,
    options: FileSaveOptions,
    seen: (prepared: PreparedFileSave) => void = () => undefined,
  ): Promise<FileSaved> {
    const prepared = await prepareFileSave(monitor, options);
    seen(prepared);
    await migrate(vm, prepared);
    return finishFileSave(prepared, null, null);
  }

  /** A whole restore, as what drives QEMU does it. */
  async restore(setup: GuestSetup, options: Parameters<typeof prepareFileRestore>[1]): Promise<FileGuest> {
    const guest = await this.destination(setup);
    const prepared = await prepareFileRestore(guest.monitor, options);
    try {
      await incoming(guest.vm, prepared, prepared.uri);
    } finally {
      await finishFileRestore(prepared);
    }
    return guest;
  }
}

/** Lets QEMU save, and waits until it calls it completed. */
export async function migrate(vm: QemuProcess, prepared: Settings & { readonly uri: string }): Promise<void> {
  await set(vm, prepared);
  await vm.qmp.execute("migrate", { uri: prepared.uri });
  await waitMigration(vm.qmp, MIGRATION_MS);
}

/** Lets QEMU load, and waits until it calls it completed. */
export async function incoming(vm: QemuProcess, settings: Settings, uri: string): Promise<void> {
  await set(vm, settings);
  await vm.qmp.execute("migrate-incoming", { uri });
  await waitMigration(vm.qmp, MIGRATION_MS);
}

export async function set(vm: QemuProcess, { capabilities: wanted, parameters }: Settings): Promise<void> {
  const capabilities = Object.entries(wanted).map(([capability, state]) => ({ capability, state }));
  await vm.qmp.execute("migrate-set-capabilities", { capabilities });
  await vm.qmp.execute("migrate-set-parameters", parameters);
}

/** What someone types who has nothing but QEMU. */
export function plainSettings(channels: number, directIo: boolean): Settings {
  const names = channels > 0 ? ["mapped-ram", "multifd"] : ["mapped-ram"];
  return {
    capabilities: Object.fromEntries(names.map((name) => [name, true])),
    parameters: { ...(channels > 0 ? { "multifd-channels": channels } : {}), "direct-io": directIo },
  };
}

/** How many pages of RAM differ. KVM writes its clock into one page of the firmware's memory as it loads: that is not RAM. */
export async function differingPages(a: Guest, b: Guest): Promise<number> {
  return (await compareFiles(a.ram?.path as string, b.ram?.path as string)).differing;
}
