import { type Accelerator, pickAccelerator } from "../demo/accelerator.ts";
import { guestArgs } from "../demo/guest.ts";
import { createRamFile, type RamFile } from "../demo/ram-file.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { QemuBinary } from "../vm/find-qemu.ts";
import { listenForMigration, migrateTo, setMultifd, waitMigration } from "../vm/migration.ts";
import { type QemuProcess, startQemu } from "../vm/qemu-process.ts";
import type { Fill } from "./choices.ts";
import { fillGuest } from "./guest-fill.ts";
import type { Destination, Peer, PeerShare } from "./peer.ts";
import { processUsage } from "./usage.ts";

const MIGRATION_MS = 3_600_000;

export interface QemuPeerOptions {
  readonly binary: QemuBinary;
  /** A multiple of 1 MiB. */
  readonly ramBytes: number;
  readonly fill: Fill;
  readonly signal: AbortSignal;
}

/** A real, paused guest whose RAM was filled from outside; and a new, empty one for each restore. */
export class QemuPeer implements Peer {
  readonly ramBytes: number;
  readonly accelerator: Accelerator;
  readonly #binary: QemuBinary;
  readonly #ram: RamFile;
  readonly #vm: QemuProcess;
  #migrated = false;

  private constructor(options: QemuPeerOptions, accelerator: Accelerator, ram: RamFile, vm: QemuProcess) {
    this.ramBytes = options.ramBytes;
    this.accelerator = accelerator;
    this.#binary = options.binary;
    this.#ram = ram;
    this.#vm = vm;
  }

  /** Rejects with NO_SPACE where no memory has room for the guest, QEMU_FAILED, or the signal's reason. */
  static async start(options: QemuPeerOptions): Promise<QemuPeer> {
    const { binary, ramBytes, fill, signal } = options;
    const accelerator = await pickAccelerator(binary);
    const ram = await createRamFile(ramBytes);
    try {
      await fillGuest(ram.path, ramBytes, fill, signal);
      return new QemuPeer(options, accelerator, ram, await guest(binary, accelerator, ram, false));
    } catch (error) {
      await ram.close();
      throw error;
    }
  }

  async migrate(address: string, channels: number): Promise<PeerShare> {
    const { qmp, pid } = this.#vm;
    // QEMU migrates a guest again only once it ran in between.
    if (this.#migrated) for (const command of ["cont", "stop"]) await qmp.execute(command);
    this.#migrated = true;
    await setMultifd(qmp, { channels });
    const share = untilCompleted(qmp, pid);
    await migrateTo(qmp, address);
    return await share;
  }

  async listen(channels: number): Promise<Destination> {
    const ram = await createRamFile(this.ramBytes);
    const vm = await guest(this.#binary, this.accelerator, ram, true).catch(async (error) => {
      await ram.close();
      throw error;
    });
    const close = async (): Promise<void> => {
      await vm.kill();
      await ram.close();
    };
    try {
      await setMultifd(vm.qmp, { channels });
      const address = `unix:${vm.socketPath("in")}`;
      await listenForMigration(vm.qmp, address);
      return { address, completed: untilCompleted(vm.qmp, vm.pid), close };
    } catch (error) {
      await close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#vm.kill();
    await this.#ram.close();
  }
}

function guest(
  binary: QemuBinary,
  accelerator: Accelerator,
  ram: RamFile,
  incoming: boolean,
): Promise<QemuProcess> {
  const memory = { kind: "file", path: ram.path } as const;
  return startQemu({ binary, args: guestArgs({ ramBytes: ram.bytes, memory, accelerator, incoming }) });
}

/** To be called before what causes it. Rejects with QEMU_FAILED and QEMU's own words. */
function untilCompleted(qmp: QmpClient, pid: number): Promise<PeerShare> {
  const before = processUsage(pid)?.cpuSeconds ?? 0;
  const share = qmp
    .waitEvent(({ event, data }) => isOver(event, data), MIGRATION_MS)
    .then(async () => {
      const completedAt = performance.now();
      const cpuSeconds = (processUsage(pid)?.cpuSeconds ?? before) - before;
      // The event says "failed" without a reason.
      await waitMigration(qmp, 1000);
      return { completedAt, cpuSeconds };
    });
  share.catch(() => undefined);
  return share;
}

function isOver(event: string, data: unknown): boolean {
  const { status } = data as { readonly status?: string };
  return event === "MIGRATION" && ["completed", "failed", "cancelled"].includes(status ?? "");
}
