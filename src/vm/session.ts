import type { Monitor } from "../qmp/monitor.ts";
import { QemuWatch } from "./qemu-watch.ts";
import { readSettings, type Settings } from "./settings.ts";
import { type Survey, surveyVm } from "./survey.ts";
import { openMonitor, type VmTarget } from "./target.ts";

/** A VM that we hold the monitor of, and what it was when we came. */
export interface VmSession {
  readonly target: VmTarget;
  readonly monitor: Monitor;
  readonly qemu: QemuWatch;
  readonly survey: Survey;
  readonly found: Settings;
}

/** Opens a VM's monitor for the time of `work`. Throws MONITOR_UNREACHABLE, QEMU_FAILED, and what `work` throws. */
export async function withVm<T>(target: VmTarget, work: (session: VmSession) => Promise<T>): Promise<T> {
  const monitor = await openMonitor(target);
  const qemu = new QemuWatch(monitor.pid);
  try {
    const survey = await surveyVm(monitor);
    return await work({ target, monitor, qemu, survey, found: await readSettings(monitor) });
  } finally {
    qemu.close();
    await monitor.close();
  }
}
