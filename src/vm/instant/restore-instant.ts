import { setTimeout as sleep } from "node:timers/promises";
import { throwIfAborted } from "../../control/cancellation.ts";
import type { CompletedEvent } from "../../control/events.ts";
import { SILENT } from "../../control/silent-log.ts";
import { teller } from "../../control/telling.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { prepareRescue } from "../../qmp/rescue-pipe.ts";
import { QemuWatch } from "../qemu-watch.ts";
import { checkDestination } from "../restore/check-destination.ts";
import { explainLock } from "../restore/disk-lock.ts";
import { startIncoming } from "../restore/incoming.ts";
import { readSaved, type SavedImage } from "../restore/saved-image.ts";
import { applySettings, readSettings } from "../settings.ts";
import { runState } from "../survey.ts";
import { openMonitor } from "../target.ts";
import { checkInstant, hostPagesOf, servable } from "./check-instant.ts";
import { hostPageArguments } from "./data-plane-arguments.ts";
import { DataPlanes } from "./data-planes.ts";
import type { InstantVmOptions } from "./options.ts";
import { superviseInstant } from "./supervisor.ts";
import { explainPostcopy } from "./userfault.ts";

/** QEMU's side of a postcopy: nothing else may be on that changes what is sent. */
const SETTINGS = { capabilities: { "postcopy-ram": true, events: true }, parameters: {} };

/**
 * Restores a VM into a QEMU that waits (-incoming defer -S), and lets it run at once: its RAM follows out of the image, first
 * what it waits for. Resolves when it has all of it; that it runs tell the events `running` and `vm`. From when it runs, its
 * disks move on and the image is its RAM's other half: losing QEMU then is losing what was in memory.
 * @throws MultifdError MONITOR_UNREACHABLE, VM_STATE, VM_MISMATCH, DISK_CHANGED, VM_RAN_ON, QEMU_UNSUPPORTED, QEMU_FAILED,
 *   NOT_AN_IMAGE (of streams: convert it), and what restoreInstant() throws. Where details.ran is true, the VM waits for the
 *   rest of its RAM, and resumeInstant() goes on
 */
export async function restoreVmInstant(
  options: InstantVmOptions & { readonly vm: { readonly qmp: string } },
): Promise<CompletedEvent> {
  throwIfAborted(options.signal);
  const { saved, planes } = await prepareInstant(options);
  try {
    const monitor = await openMonitor(options.vm);
    try {
      prepareRescue(monitor.place);
      const place = `the QEMU at ${monitor.place}`;
      return await serveInto(monitor, saved, planes, { ...options, place });
    } finally {
      await monitor.close();
    }
  } finally {
    await planes.close();
  }
}

/** An image that pages can be served from, and what serves them: it waits for QEMU. */
export interface PreparedInstant {
  readonly saved: SavedImage;
  /** To be closed. */
  readonly planes: DataPlanes;
}

/** @throws MultifdError what readSaved() and servable() throw */
export async function prepareInstant(options: InstantVmOptions): Promise<PreparedInstant> {
  const saved = await readSaved(options);
  const planes = new DataPlanes(servable(saved.report, options), options);
  planes.prepare();
  return { saved, planes };
}

export interface ServeOptions extends InstantVmOptions {
  /** How messages name that QEMU. */
  readonly place: string;
  /** Called before QEMU gets the first byte: what throws here keeps the VM from running. */
  readonly beforeRun?: (() => Promise<void>) | undefined;
  /** Called when QEMU was told to run the VM, which nothing takes back. */
  readonly onRun?: (() => void) | undefined;
  /** Called when the VM runs, or is paused where that was asked for, and gets its RAM. */
  readonly onVm?: (() => Promise<void>) | undefined;
}

/** The restore itself, into a QEMU whose monitor is ours. */
export async function serveInto(
  monitor: Monitor,
  saved: SavedImage,
  planes: DataPlanes,
  options: ServeOptions,
): Promise<CompletedEvent> {
  const { force = false, uuid, place, run = saved.running } = options;
  const { log = SILENT } = options;
  const tell = teller(options);
  const survey = await checkDestination(monitor, saved, { place, uuid: uuid ?? saved.uuid, force }, log);
  await checkInstant(monitor, survey, log);
  const args = hostPageArguments(await hostPagesOf(monitor));
  planes.admit(monitor);
  const qemu = new QemuWatch(monitor.pid);
  try {
    await options.beforeRun?.();
    await setUp(monitor, `unix:${planes.socket(0)}`);
    tell({ event: "vm", state: "migrating" });
    const onRunning = async (): Promise<void> => {
      options.onRun?.();
      await letRun(monitor, run);
      await options.onVm?.();
      tell({ event: "vm", state: run ? "running" : "paused" });
    };
    const completed = await superviseInstant(
      planes,
      { monitor, qemu, args, onRunning, resume: false },
      options,
    );
    tell(completed);
    return completed;
  } finally {
    qemu.close();
  }
}

/** Whether it was started with -S or not: once its devices are loaded, the guest waits for our word. */
async function setUp(monitor: Monitor, uri: string): Promise<void> {
  try {
    await applySettings(monitor, await readSettings(monitor), SETTINGS);
  } catch (error) {
    throw explainPostcopy(error, monitor);
  }
  // In the state inmigrate this only says what is to follow (qmp_stop, monitor/qmp-cmds.c of 7.2 and 10.0). So would cont, and
  // spare the millisecond in letRun(). But where the disks are locked by another process, 10.0.2 takes it all the same,
  // and then stays in inmigrate for ever.
  await monitor.execute("stop");
  await startIncoming(monitor, uri);
}

const POLL_MS = 5;
const PATIENCE_MS = 30_000;

/** Lets the VM run, if it is to, as soon as it can. */
async function letRun(monitor: Monitor, run: boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  let { status, running } = await runState(monitor);
  while (status === "inmigrate" && Date.now() < deadline) {
    await sleep(POLL_MS);
    ({ status, running } = await runState(monitor));
  }
  if (run && !running) await monitor.execute("cont").catch(explainLock);
}
