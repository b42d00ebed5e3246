import { teller } from "../../control/telling.ts";
import { type LaunchedQemu, type LaunchOptions, launchQemu } from "../restore/launch.ts";
import type { RestoreVmOptions } from "../restore/restore-vm.ts";
import { runState } from "../survey.ts";
import { type ManagedPlace, monitorArguments } from "./directory.ts";
import { writeRecord } from "./record.ts";

/** How a VM is started, as its record says it. */
export interface KnownLaunch extends LaunchOptions {
  readonly cwd: string;
}

export interface BootOptions extends Pick<RestoreVmOptions, "image" | "run" | "onEvent" | "log"> {
  /** Called when the VM answers: what throws here ends it. */
  readonly beforeRun?: ((qemu: LaunchedQemu) => Promise<void>) | undefined;
}

/**
 * Starts a VM that has no managed image. Without a guardian: it runs from its first moment, whatever becomes of us.
 * @throws MultifdError USAGE, QEMU_MISSING, QEMU_FAILED (QEMU ended, or does not answer), IO
 */
export async function boot(
  place: ManagedPlace,
  options: BootOptions,
  launch: KnownLaunch,
): Promise<LaunchedQemu> {
  const command = [...launch.command, ...monitorArguments(place)];
  const qemu = await launchQemu({ ...launch, command }, () => (options.run === false ? ["-S"] : []));
  try {
    const running = await isRunning(qemu);
    await options.beforeRun?.(qemu);
    writeRecord(place, launch.command, launch.cwd);
    teller(options)({ event: "vm", state: running ? "running" : "paused" });
    qemu.forget();
    return qemu;
  } catch (error) {
    await qemu.kill();
    throw error;
  }
}

async function isRunning(qemu: LaunchedQemu): Promise<boolean> {
  const monitor = await qemu.connect();
  try {
    return (await runState(monitor)).running;
  } finally {
    await monitor.close();
  }
}
