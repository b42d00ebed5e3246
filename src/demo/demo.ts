import { mkdtemp, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { MultifdError } from "../errors.ts";
import {
  type CompletedEvent,
  type Log,
  type RunEvent,
  restore,
  save,
  type VerifyReport,
  verify,
} from "../index.ts";
import { chooseQemu, type QemuBinary } from "../vm/find-qemu.ts";
import { listenForMigration, migrateTo, setMultifd, waitMigration } from "../vm/migration.ts";
import { type QemuProcess, startQemu } from "../vm/qemu-process.ts";
import { type Accelerator, pickAccelerator } from "./accelerator.ts";
import { guestArgs } from "./guest.ts";
import { type ImageDirectory, pickImageDirectory } from "./image-dir.ts";
import { pickRamDirectory, type RamDirectory } from "./ram-dir.ts";
import { createRamFile, type RamFile } from "./ram-file.ts";
import { compareFiles, fillRam, type RamComparison } from "./ram-pattern.ts";

export interface DemoOptions {
  /** A multiple of 1 MiB. */
  readonly ramBytes: number;
  /** multifd channels, 1..255. */
  readonly channels: number;
  /** Path of a QEMU; the newest on this machine when left out. */
  readonly qemu?: string | undefined;
  /** Where the image lies for a while; a place on a disk is looked for when left out. */
  readonly imageDirectory?: string | undefined;
  /** Where both guests' RAM lies for a while; a place in memory is looked for when left out. */
  readonly ramDirectory?: string | undefined;
  /** Ends the demo; it cleans up and rejects with the signal's reason. */
  readonly signal: AbortSignal;
  readonly log: Log;
  /** What was done, step by step. */
  readonly onStep: (step: DemoStep) => void;
  /** What save, restore and verify tell while they work. */
  readonly onEvent: (event: RunEvent) => void;
}

/** One step that is done. Times are in milliseconds. */
export type DemoStep =
  | {
      readonly step: "planned";
      readonly qemu: QemuBinary;
      readonly accelerator: Accelerator;
      readonly ramBytes: number;
      readonly channels: number;
      readonly ramDirectory: RamDirectory;
      readonly imageDirectory: ImageDirectory;
    }
  | { readonly step: "filled"; readonly elapsedMs: number }
  | { readonly step: "started"; readonly elapsedMs: number }
  /** `diskBytes` is what the image takes on disk: unused space in it is given back. */
  | { readonly step: "saved"; readonly result: CompletedEvent; readonly diskBytes: number }
  | { readonly step: "verified"; readonly result: VerifyReport }
  | { readonly step: "restored"; readonly result: CompletedEvent }
  | { readonly step: "compared"; readonly result: RamComparison; readonly elapsedMs: number }
  | { readonly step: "cleaned" };

type Plan = Extract<DemoStep, { step: "planned" }>;

const MIGRATION_MS = 600_000;

/**
 * Saves a real, paused guest with prefilled RAM into an image, restores it into a second QEMU and compares both
 * RAMs bit for bit. Nothing of it is left when this settles, however it ends.
 * Rejects with QEMU_MISSING, NO_SPACE, whatever save, verify and restore reject with, or INTERNAL if the RAM differs.
 */
export async function runDemo(options: DemoOptions): Promise<void> {
  const stage = new Stage();
  try {
    await perform(options, stage);
  } catch (error) {
    // Ctrl-C reaches QEMU as well, and what fails because of that is not the reason.
    throw options.signal.aborted ? options.signal.reason : error;
  } finally {
    await stage.clear();
  }
  options.onStep({ step: "cleaned" });
}

async function perform(options: DemoOptions, stage: Stage): Promise<void> {
  const { signal, onStep } = options;
  const plan = await makePlan(options);
  onStep(plan);

  const sourceRam = await stage.ram(plan);
  const filling = performance.now();
  await fillRam(sourceRam.path, plan.ramBytes, 1, signal);
  onStep({ step: "filled", elapsedMs: since(filling) });

  const starting = performance.now();
  const source = await stage.guest(plan, sourceRam, false);
  onStep({ step: "started", elapsedMs: since(starting) });

  const image = join(await stage.directory(plan.imageDirectory.directory), "demo.mfd");
  const saved = await saveGuest(source, image, options);
  onStep({ step: "saved", result: saved, diskBytes: 512 * (await stat(image)).blocks });
  await source.quit();

  const { log, onEvent } = options;
  onStep({ step: "verified", result: await verify({ image, signal, log, onEvent }) });

  signal.throwIfAborted();
  const destinationRam = await stage.ram(plan);
  const destination = await stage.guest(plan, destinationRam, true);
  onStep({ step: "restored", result: await restoreGuest(destination, image, options) });

  const comparing = performance.now();
  const result = await compareFiles(sourceRam.path, destinationRam.path, signal);
  onStep({ step: "compared", result, elapsedMs: since(comparing) });
  if (result.differing > 0) throw differs(result);
}

async function makePlan(options: DemoOptions): Promise<Plan> {
  const { ramBytes, channels } = options;
  const qemu = await chooseQemu(options.qemu);
  const accelerator = await pickAccelerator(qemu);
  const ramDirectory = await pickRamDirectory(2 * ramBytes, options.ramDirectory);
  // Incompressible RAM, its packet headers, and an unused extent for each channel.
  const imageBytes = ramBytes * 1.05 + channels * 4 * 2 ** 20;
  const reserved = { bytes: 2 * ramBytes, inMemory: ramDirectory.inMemory };
  const imageDirectory = await pickImageDirectory(imageBytes, reserved, options.imageDirectory);
  return { step: "planned", qemu, accelerator, ramBytes, channels, ramDirectory, imageDirectory };
}

/** QEMU's `completed` and the drained channels decide together: neither knows alone whether a save is good. */
async function saveGuest(guest: QemuProcess, image: string, options: DemoOptions): Promise<CompletedEvent> {
  const { channels, log, onEvent } = options;
  await setMultifd(guest.qmp, { channels });
  const refused = new AbortController();
  return await save({
    image,
    listen: `unix:${guest.socketPath("save")}`,
    channels,
    log,
    signal: AbortSignal.any([options.signal, refused.signal]),
    onEvent: (event) => {
      onEvent(event);
      if (event.event === "listening") {
        migrateTo(guest.qmp, event.address).catch((error: unknown) => refused.abort(error));
      }
    },
    confirm: async () => {
      await waitMigration(guest.qmp, MIGRATION_MS);
      return "commit";
    },
  });
}

async function restoreGuest(
  guest: QemuProcess,
  image: string,
  options: DemoOptions,
): Promise<CompletedEvent> {
  const { channels, signal, log, onEvent } = options;
  const address = `unix:${guest.socketPath("restore")}`;
  await setMultifd(guest.qmp, { channels });
  await listenForMigration(guest.qmp, address);
  const delivered = await restore({ image, connect: address, expect: { channels }, signal, log, onEvent });
  await waitMigration(guest.qmp, MIGRATION_MS);
  return delivered;
}

/** Everything that the demo starts and creates, to be cleared away in the reverse order. */
class Stage {
  readonly #cleanUps: (() => Promise<unknown>)[] = [];

  async ram({ ramBytes, ramDirectory }: Plan): Promise<RamFile> {
    const file = await createRamFile(ramBytes, ramDirectory.directory);
    this.#cleanUps.unshift(() => file.close());
    return file;
  }

  async directory(parent: string): Promise<string> {
    const directory = await mkdtemp(join(parent, "multifd-demo-"));
    this.#cleanUps.unshift(() => rm(directory, { recursive: true, force: true }));
    return directory;
  }

  async guest(plan: Plan, ram: RamFile, incoming: boolean): Promise<QemuProcess> {
    const { qemu, accelerator, ramBytes } = plan;
    const memory = { kind: "file", path: ram.path } as const;
    const vm = await startQemu({
      binary: qemu,
      args: guestArgs({ ramBytes, memory, accelerator, incoming }),
    });
    this.#cleanUps.unshift(() => vm.kill());
    return vm;
  }

  async clear(): Promise<void> {
    for (const cleanUp of this.#cleanUps) await cleanUp();
  }
}

function since(start: number): number {
  return Math.round(performance.now() - start);
}

function differs({ pages, differing, firstDifferingPage }: RamComparison): MultifdError {
  const text = `the restored RAM differs from the saved one in ${differing} of ${pages} pages, first in page ${firstDifferingPage}: please report it, with the versions above`;
  return new MultifdError("INTERNAL", text, { pages, differing, firstDifferingPage });
}
