import type { LaunchedQemu, LaunchOptions } from "../vm/restore/launch.ts";
import { writePidFile } from "./pid-file.ts";
import type { QemuRestoreFlags } from "./qemu-options.ts";

/** How the QEMU behind -- is started, and what is told of it before its VM can run. */
export function launchOptions(
  command: readonly string[],
  { detach, json, pidFile }: QemuRestoreFlags,
): LaunchOptions & { readonly beforeRun: (qemu: LaunchedQemu) => Promise<void> } {
  return {
    command,
    detached: detach === true,
    stdoutToStderr: json === true,
    beforeRun: async ({ pid }) => {
      if (pidFile !== undefined) writePidFile(pidFile, pid);
    },
  };
}
