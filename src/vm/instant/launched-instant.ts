import { join } from "node:path";
import { whenAborted } from "../../control/cancellation.ts";
import type { CompletedEvent } from "../../control/events.ts";
import { MultifdError } from "../../errors.ts";
import { makeRescuePipe, prepareRescue } from "../../qmp/rescue-pipe.ts";
import type { Guardian } from "../guard/guardian.ts";
import { type LaunchedQemu, type LaunchOptions, launchQemu, WAITING } from "../restore/launch.ts";
import { endLaunched, guardLaunched } from "../restore/restore-launched.ts";
import type { InstantVmOptions } from "./options.ts";
import { type PreparedInstant, prepareInstant, serveInto } from "./restore-instant.ts";

/** A VM that was restored at once, and the QEMU that was started for it. */
export interface InstantVm {
  readonly qemu: LaunchedQemu;
  /**
   * All its RAM is there. Rejects when that does not come to be: QEMU lives on then, with its VM waiting for the rest
   * (details.ran), unless it has ended (details.ended).
   */
  readonly completed: Promise<CompletedEvent>;
}

export interface LaunchInstantOptions extends Omit<InstantVmOptions, "signal">, LaunchOptions {
  /** Cancels the restore until the VM runs, and a detached one until it has all its RAM. */
  readonly signal?: AbortSignal | undefined;
  /** Called with the VM still to be loaded, before it can run: what throws here ends it instead. */
  readonly beforeRun?: ((qemu: LaunchedQemu) => Promise<void>) | undefined;
}

/**
 * Starts QEMU with the user's arguments and restores an image into it. Resolves as soon as the VM runs (or is paused, if that
 * is what was asked for): QEMU is the caller's then, and its RAM follows. When it rejects, the VM has not run and no QEMU is
 * left, also not when this process is killed. A VM that runs is served to the end, also when this process is killed.
 * @throws MultifdError USAGE, QEMU_MISSING, QEMU_FAILED, and what restoreVmInstant() throws
 */
export async function restoreLaunchedInstant(options: LaunchInstantOptions): Promise<InstantVm> {
  // A QEMU in the foreground gets the caller's signals itself once its VM runs.
  const until = new AbortController();
  const stopListening = whenAborted(options.signal, (error) => until.abort(error));
  const own = { ...options, signal: until.signal };
  const prepared = await prepareInstant(own);
  return await new Promise((resolve, reject) => {
    const completed = launchPrepared(prepared, own, {
      onRun: () => {
        if (!options.detached) stopListening();
      },
      onVm: (qemu) => resolve({ qemu, completed }),
    });
    completed.catch(reject);
  });
}

interface Hooks {
  /** The VM was told to run. */
  readonly onRun: () => void;
  /** The QEMU is the caller's. */
  readonly onVm: (qemu: LaunchedQemu) => void;
}

async function launchPrepared(
  prepared: PreparedInstant,
  options: LaunchInstantOptions,
  hooks: Hooks,
): Promise<CompletedEvent> {
  try {
    const rescue = (directory: string): readonly string[] => makeRescuePipe(join(directory, "qmp"));
    const qemu = await launchQemu(options, (directory) => [...WAITING, ...rescue(directory)]);
    const guardian = await guardLaunched(qemu);
    try {
      return await serveLaunched(qemu, prepared, options, guardian, hooks);
    } finally {
      await guardian.dismiss();
    }
  } finally {
    await prepared.planes.close();
  }
}

async function serveLaunched(
  qemu: LaunchedQemu,
  { saved, planes }: PreparedInstant,
  options: LaunchInstantOptions,
  guardian: Guardian,
  { onRun, onVm }: Hooks,
): Promise<CompletedEvent> {
  try {
    const monitor = await qemu.connect();
    try {
      prepareRescue(qemu.monitorPath);
      const completed = await serveInto(monitor, saved, planes, {
        ...options,
        place: "the QEMU that was started",
        beforeRun: async () => {
          await options.beforeRun?.(qemu);
          await guardian.letRun();
        },
        onRun,
        onVm: async () => {
          await guardian.leave();
          onVm(qemu);
        },
      });
      qemu.forget();
      return completed;
    } finally {
      await monitor.close();
    }
  } catch (error) {
    // One that was cancelled in the moment in which it began to run is ended as it would have been before.
    if (!hasRun(error) || (!options.detached && options.signal?.aborted))
      throw await endLaunched(qemu, error);
    if (hasEnded(error)) qemu.forget();
    else qemu.leave();
    throw error;
  }
}

/** As the error says: that this process hears of the end of its child may take a moment longer. */
function hasEnded(error: unknown): boolean {
  return error instanceof MultifdError && error.details.ended === true;
}

function hasRun(error: unknown): boolean {
  return error instanceof MultifdError && error.details.ran === true;
}
