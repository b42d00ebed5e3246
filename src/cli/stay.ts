import type { LaunchedQemu } from "../vm/restore/launch.ts";
import { statusOfExit } from "./exit.ts";
import type { Session } from "./session.ts";

/** Stays until QEMU ends: a signal that would have cancelled the run is QEMU's from now on. @returns its exit status */
export async function stayWith(qemu: LaunchedQemu, { signal }: Session): Promise<number> {
  const pass = (): void => qemu.signal(signal.reason?.details?.signal ?? "SIGTERM");
  if (signal.aborted) pass();
  signal.addEventListener("abort", pass, { once: true });
  return statusOfExit(await qemu.exited);
}
