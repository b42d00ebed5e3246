import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { SaveOptions } from "../../src/control/options.ts";
import type { Accelerator } from "../../src/demo/accelerator.ts";
import { type GuestMemory, type GuestOptions, guestArgs } from "../../src/demo/guest.ts";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import { fillRam } from "../../src/demo/ram-pattern.ts";
import { type CompletedEvent, restore, save } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { listenForMigration, migrateTo, setMultifd, waitMigration } from "../../src/vm/migration.ts";
import { type QemuProcess, startQemu } from "../../src/vm/qemu-process.ts";
import { pickAccelerator } from "./accelerator.ts";

const MIGRATION_MS = 120_000;

export interface GuestSetup {
  readonly binary: QemuBinary;
  readonly ramBytes: number;
  readonly machine?: string;
  readonly bootDisk?: string;
  /** What pickAccelerator answers if absent. */
  readonly accelerator?: Accelerator;
  /** File-backed RAM that the test reads from outside, unless something else is asked for. */
  readonly memory?: Exclude<GuestMemory, { kind: "file" }>;
  readonly extraArgs?: readonly string[];
}

export interface Channels {
  /** 0: multifd off. */
  readonly channels: number;
  readonly compression?: "none" | "zlib" | "zstd";
  /** The guest runs while it is saved, and is not let to its stop before this many passes over its RAM. */
  readonly livePasses?: number;
}

export interface Guest {
  readonly vm: QemuProcess;
  /** The guest's RAM, or null when it is not a file. */
  readonly ram: RamFile | null;
}

/** A save under test: the library's, unless a test puts something below the data path. */
export type SaveCall = (options: SaveOptions) => Promise<CompletedEvent>;

/** Everything that a test with real VMs starts and creates, so that nothing of it is left behind. */
export class Lab {
  readonly directory: string;
  readonly #vms: QemuProcess[] = [];
  readonly #files: RamFile[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async open(): Promise<Lab> {
    return new Lab(await mkdtemp(path.join(tmpdir(), "mfd-lab-")));
  }

  async close(): Promise<void> {
    await Promise.all(this.#vms.map((vm) => vm.kill()));
    await Promise.all(this.#files.map((file) => file.close()));
    await rm(this.directory, { recursive: true, force: true });
  }

  file(name: string): string {
    return path.join(this.directory, name);
  }

  /** A paused guest whose RAM has a known mix of random, patterned and zero pages. */
  async source(setup: GuestSetup, seed = 1): Promise<Guest> {
    const ram = setup.memory === undefined ? await this.#ramFile(setup.ramBytes) : null;
    if (ram !== null) await fillRam(ram.path, setup.ramBytes, seed);
    return { vm: await this.#start(setup, ram, false), ram };
  }

  /** A guest with empty RAM that waits for migrate-incoming. */
  async waiting(setup: GuestSetup): Promise<Guest> {
    const ram = setup.memory === undefined ? await this.#ramFile(setup.ramBytes) : null;
    return { vm: await this.#start(setup, ram, true), ram };
  }

  /** A guest with empty RAM that waits for a migration on `address`. */
  async destination(setup: GuestSetup, channels: Channels, address: string): Promise<Guest> {
    const guest = await this.waiting(setup);
    await configure(guest.vm, channels);
    await listenForMigration(guest.vm.qmp, address);
    return guest;
  }

  /** Saves a guest into `image` and sees the migration through on both sides; the guest stays, paused. */
  async save(
    guest: Guest,
    channels: Channels,
    options: Omit<SaveOptions, "listen">,
    call: SaveCall = save,
  ): Promise<CompletedEvent> {
    await configure(guest.vm, channels);
    const address = `unix:${path.join(guest.vm.directory, "out")}`;
    const { run } = await untilListening(call, { ...options, listen: address });
    await migrateTo(guest.vm.qmp, address);
    if (channels.livePasses !== undefined) await converge(guest.vm, channels.livePasses);
    const [completed] = await Promise.all([run, waitMigration(guest.vm.qmp, MIGRATION_MS)]);
    return completed;
  }

  /** Restores `image` into a new guest and waits until QEMU calls it complete. */
  async restore(
    setup: GuestSetup,
    channels: Channels,
    image: string,
    call: typeof restore = restore,
  ): Promise<Guest> {
    const address = `unix:${this.file(`in-${this.#vms.length}`)}`;
    const guest = await this.destination(setup, channels, address);
    await call({ image, connect: address, workers: 2 });
    await waitMigration(guest.vm.qmp, MIGRATION_MS);
    return guest;
  }

  async #ramFile(bytes: number): Promise<RamFile> {
    const file = await createRamFile(bytes);
    this.#files.push(file);
    return file;
  }

  async #start(setup: GuestSetup, ram: RamFile | null, incoming: boolean): Promise<QemuProcess> {
    const { binary, ramBytes, machine, bootDisk, extraArgs } = setup;
    const memory: GuestMemory =
      ram === null ? (setup.memory as GuestMemory) : { kind: "file", path: ram.path };
    const guest: GuestOptions = {
      ramBytes,
      memory,
      accelerator: setup.accelerator ?? (await pickAccelerator(binary)),
      incoming,
      ...(machine === undefined ? {} : { machine }),
      ...(bootDisk === undefined ? {} : { bootDisk }),
      ...(extraArgs === undefined ? {} : { extraArgs }),
    };
    const vm = await startQemu({ binary, args: guestArgs(guest) });
    this.#vms.push(vm);
    return vm;
  }
}

/** Sets a QEMU up for as many channels; without any, bandwidth alone. */
export async function configure(
  vm: QemuProcess,
  { channels, compression, livePasses }: Channels,
): Promise<void> {
  if (channels > 0) await setMultifd(vm.qmp, { channels, compression: compression ?? "none" });
  else await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 0 });
  if (livePasses === undefined) return;
  // Slow, and no stop is short enough: pages are dirtied again before all of them were sent.
  await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 400 * 2 ** 20, "downtime-limit": 1 });
}

/** Lets a live migration go over the RAM a few times, and then any stop will do. */
export async function converge(vm: QemuProcess, passes: number): Promise<void> {
  const deadline = Date.now() + MIGRATION_MS;
  for (;;) {
    const info = (await vm.qmp.execute("query-migrate")) as { ram?: { "dirty-sync-count": number } };
    if ((info.ram?.["dirty-sync-count"] ?? 0) > passes) break;
    if (Date.now() > deadline) throw new Error(`no ${passes} passes within ${MIGRATION_MS} ms`);
    await sleep(20);
  }
  await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 0, "downtime-limit": 60_000 });
}

/** Starts a save and waits for its socket. The run comes in an object: as a bare promise it would be waited for. */
export function untilListening(
  call: SaveCall,
  options: SaveOptions,
): Promise<{ run: Promise<CompletedEvent> }> {
  return new Promise((resolve, reject) => {
    const run = call({
      ...options,
      onEvent: (event) => {
        if (event.event === "listening") resolve({ run });
        options.onEvent?.(event);
      },
    });
    run.catch(reject);
  });
}
