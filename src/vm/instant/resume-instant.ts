import { throwIfAborted } from "../../control/cancellation.ts";
import type { CompletedEvent } from "../../control/events.ts";
import { inspect } from "../../control/inspect.ts";
import { identityOf } from "../../control/instant/identity.ts";
import { refuseUnlessResumable } from "../../control/instant/ran-on.ts";
import type { MappedRamReport } from "../../control/reports.ts";
import { SILENT } from "../../control/silent-log.ts";
import { teller } from "../../control/telling.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { QemuWatch } from "../qemu-watch.ts";
import { compareVm } from "../restore/compare.ts";
import { isUnderWay, runState, surveyVm } from "../survey.ts";
import { openMonitor } from "../target.ts";
import { hostPagesOf, servable } from "./check-instant.ts";
import { hostPageArguments } from "./data-plane-arguments.ts";
import { DataPlanes } from "./data-planes.ts";
import { endFormerHelper } from "./former-helper.ts";
import { listenAgain, overMonitor } from "./listen-again.ts";
import type { ResumeInstantOptions } from "./options.ts";
import { superviseInstant } from "./supervisor.ts";
import { isHanging, untilItAnswers } from "./unblock.ts";

const CONNECT_MS = 3000;

/**
 * Goes on with an instant restore of which nothing but QEMU is left, or whose helper hangs: that one is shut out. The image
 * is the same one, or a copy of it with `force`.
 * @throws MultifdError VM_STATE (there is nothing to resume), VM_MISMATCH, and what restoreVmInstant() throws
 */
export async function resumeInstant(options: ResumeInstantOptions): Promise<CompletedEvent> {
  throwIfAborted(options.signal);
  const { log = SILENT } = options;
  const tell = teller(options);
  const planes = new DataPlanes(await reportOf(options), options);
  try {
    const monitor = await reach(options);
    const qemu = new QemuWatch(monitor.pid);
    try {
      await check(monitor, planes.report, options);
      const args = hostPageArguments(await hostPagesOf(monitor));
      planes.admit(monitor);
      await listenAgain(overMonitor(monitor), planes.socket(0));
      await endFormerHelper(planes.image.fd, log);
      const onRunning = async (): Promise<void> => {
        const { running } = await runState(monitor);
        tell({ event: "vm", state: running ? "running" : "paused" });
      };
      const completed = await superviseInstant(
        planes,
        { monitor, qemu, args, onRunning, resume: true },
        options,
      );
      tell(completed);
      return completed;
    } finally {
      qemu.close();
      await monitor.close();
    }
  } finally {
    await planes.close();
  }
}

/** Not with what refuses an image that was used: this is what used it. */
async function reportOf(options: ResumeInstantOptions): Promise<MappedRamReport> {
  const report = await inspect({ image: options.image, offset: options.offset });
  const inner = report.format === "libvirt" ? report.contents : report;
  if (inner?.format === "stream" || inner?.format === "mapped-ram") return servable(inner, options);
  const text = `${report.path} is no image that an instant restore can have begun with`;
  throw new MultifdError("NOT_AN_IMAGE", text, { path: report.path });
}

async function reach(options: ResumeInstantOptions): Promise<Monitor> {
  try {
    return await openMonitor(options.vm, CONNECT_MS);
  } catch (error) {
    if (!isHanging(error)) throw error;
    return await untilItAnswers(options);
  }
}

/** @throws MultifdError VM_STATE, VM_MISMATCH */
async function check(
  monitor: Monitor,
  report: MappedRamReport,
  { force = false, log = SILENT }: ResumeInstantOptions,
): Promise<void> {
  const survey = await surveyVm(monitor);
  refuseUnlessWaiting(survey.migration, monitor.place);
  // Before anybody connects: 7.2 does not survive a helper that leaves again at once.
  const qemu = monitor.pid === null ? null : identityOf(monitor.pid);
  refuseUnlessResumable(report.resumed, qemu, { image: report.path, force, log });
  // Its UUID may be another one, as that of a clone.
  const comparison = { place: `the QEMU at ${monitor.place}`, uuid: undefined, force };
  await compareVm(report, survey, monitor, comparison, log);
}

function refuseUnlessWaiting(migration: string, place: string): void {
  if (migration.startsWith("postcopy-")) return;
  const why =
    migration === "completed"
      ? "it has all its RAM"
      : migration === "failed"
        ? "what it was to load failed: end it and start it anew"
        : isUnderWay(migration)
          ? `its VM has not run yet (${migration})`
          : "no instant restore into it has begun: use --instant";
  const text = `there is nothing to resume in the QEMU at ${place}: ${why}`;
  throw new MultifdError("VM_STATE", text, { migration });
}
