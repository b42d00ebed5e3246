import type { CompletedEvent } from "../../control/events.ts";
import { MultifdError } from "../../errors.ts";
import { Guardian } from "../guard/guardian.ts";
import { type LaunchedQemu, type LaunchOptions, launchQemu } from "./launch.ts";
import { type RestoreVmOptions, restoreInto } from "./restore-vm.ts";
import { readSaved } from "./saved-image.ts";

/** A restored VM, and the QEMU that was started for it. */
export interface LaunchedVm {
  readonly completed: CompletedEvent;
  readonly qemu: LaunchedQemu;
}

export interface RestoreLaunchedOptions extends Omit<RestoreVmOptions, "beforeRun">, LaunchOptions {
  /** Called with the VM restored and paused, before it is let run: what throws here ends it instead. */
  readonly beforeRun?: ((qemu: LaunchedQemu) => Promise<void>) | undefined;
}

/**
 * Starts QEMU with the user's arguments and restores an image into it. When this resolves, the VM runs (or is paused, if that is
 * what was asked for) and QEMU is the caller's; when it rejects, no QEMU is left, also not when this process is killed.
 * @throws MultifdError USAGE, QEMU_MISSING, QEMU_FAILED, and what restoreVm() throws
 */
export async function restoreLaunched(options: RestoreLaunchedOptions): Promise<LaunchedVm> {
  const saved = await readSaved(options);
  const qemu = await launchQemu(options);
  const guardian = await guardLaunched(qemu);
  try {
    const monitor = await qemu.connect();
    try {
      const completed = await restoreInto(
        monitor,
        saved,
        {
          ...options,
          beforeRun: async (run) => {
            await options.beforeRun?.(qemu);
            await (run ? guardian.letRun() : guardian.dismiss());
          },
        },
        "the QEMU that was started",
      );
      return { completed, qemu };
    } finally {
      await monitor.close();
    }
  } catch (error) {
    throw await endLaunched(qemu, error);
  } finally {
    await guardian.dismiss();
    qemu.forget();
  }
}

const ENDING_MS = 500;
/** Exit statuses of errors that QEMU's end may have caused. */
const QEMUS_FAULT: readonly number[] = [3, 6, 7];

/** Ends a QEMU whose VM never ran. @returns the reason: one that had ended by itself said why */
export async function endLaunched(qemu: LaunchedQemu, error: unknown): Promise<unknown> {
  // Its connections break a moment before it is gone.
  const ended = await qemu.endsWithin(ENDING_MS);
  const words = qemu.lastWords();
  await qemu.kill();
  if (!ended || !(error instanceof MultifdError) || !QEMUS_FAULT.includes(error.exitStatus)) return error;
  const text = `QEMU ended while it was to load the image: ${words}`;
  return new MultifdError("QEMU_FAILED", text, error.details, error);
}

/** A guardian that ends this QEMU, and its VM that nobody owns yet, if this process is killed. Throws INTERNAL. */
export async function guardLaunched(qemu: LaunchedQemu): Promise<Guardian> {
  try {
    return await Guardian.start(["kill", String(qemu.pid), qemu.directory]);
  } catch (error) {
    await qemu.kill();
    throw error;
  }
}
