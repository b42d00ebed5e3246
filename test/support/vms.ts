import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach } from "vitest";
import { type GuestOptions, guestArgs } from "../../src/demo/guest.ts";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { type QemuProcess, startQemu } from "../../src/vm/qemu-process.ts";
import { dirtierDisk } from "./boot-sector.ts";
import { currentPass, type WalkedRange } from "./dirty-ram.ts";

/** A VM and the file that is its RAM. */
export interface VmWithRam {
  readonly vm: QemuProcess;
  readonly ram: RamFile;
}

export type VmOptions = Omit<GuestOptions, "memory" | "bootDisk">;

export interface Vms {
  /** A paused guest whose RAM, all zeros, is a file. */
  start(binary: QemuBinary, options: VmOptions): Promise<VmWithRam>;
  /** The same, with a disk that boots the dirtier (boot-sector.ts). It needs "cont" to begin. */
  startDirtier(
    binary: QemuBinary,
    options: VmOptions,
    spin?: number,
  ): Promise<VmWithRam & { walked: WalkedRange }>;
  /** A QEMU with arguments of its own. */
  startWith(binary: QemuBinary, args: readonly string[]): Promise<QemuProcess>;
}

/** Real VMs for the tests of one file; what a test starts is gone when that test ends. */
export function useVms(): Vms {
  const cleanUps: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    await Promise.all(cleanUps.splice(0).map((cleanUp) => cleanUp()));
  });

  async function startWith(binary: QemuBinary, args: readonly string[]): Promise<QemuProcess> {
    const vm = await startQemu({ binary, args });
    cleanUps.push(() => vm.kill());
    return vm;
  }

  async function startOnFile(binary: QemuBinary, options: Omit<GuestOptions, "memory">): Promise<VmWithRam> {
    const ram = await createRamFile(options.ramBytes);
    cleanUps.push(() => ram.close());
    const vm = await startWith(binary, guestArgs({ ...options, memory: { kind: "file", path: ram.path } }));
    return { vm, ram };
  }

  return {
    startWith,
    start: startOnFile,
    async startDirtier(binary, options, spin) {
      const walked = { start: 2 ** 20, end: options.ramBytes };
      const directory = await mkdtemp(join(tmpdir(), "dirtier-"));
      cleanUps.push(() => rm(directory, { recursive: true }));
      const bootDisk = join(directory, "disk");
      await writeFile(bootDisk, dirtierDisk(spin === undefined ? walked : { ...walked, spin }));
      return { ...(await startOnFile(binary, { ...options, bootDisk })), walked };
    },
  };
}

/** Waits until the running guest is in pass `pass` or later; booting counts. */
export async function untilPass(ram: RamFile, walked: WalkedRange, pass: number): Promise<void> {
  const deadline = Date.now() + 30_000;
  while ((await currentPass(ram.path, walked)) < pass) {
    if (Date.now() > deadline) throw new Error(`the guest has not reached pass ${pass} in 30 s`);
    await sleep(10);
  }
}
