import { throwIfAborted } from "../../control/cancellation.ts";
import type { CompletedEvent } from "../../control/events.ts";
import { DEFAULT_CHANNELS } from "../../control/options.ts";
import { recordDisks } from "../disks/record.ts";
import { HelperEngine } from "../save/helper-engine.ts";
import type { SaveVmOptions } from "../save/options.ts";
import type { SavePlan } from "../save/plan.ts";
import { refuseBackups } from "../save/refusals.ts";
import { VmSave } from "../save/vm-save.ts";
import { type VmSession, withVm } from "../session.ts";
import { DiskOverlays } from "./disk-overlays.ts";
import { checkSnapshotOptions, type SnapshotVmOptions } from "./options.ts";
import { planOverlays, writableDisks } from "./overlay-plan.ts";
import { explainBackground, refuseBackground, refuseSnapshot } from "./refusals.ts";
import { backgroundSteps, livingSteps, standingSteps } from "./steps.ts";

/**
 * Saves a VM that goes on to run, and with `disks` its disks at the same moment. A VM that runs is saved as of the start
 * (a background snapshot), or with `live` as of the end; one that stands still is saved as it stands, and stays so.
 * Whatever fails, the VM runs on as it did, as saveVm() promises; overlays that its disks got are merged back.
 * @throws MultifdError USAGE, MONITOR_UNREACHABLE, VM_STATE, QEMU_UNSUPPORTED, QEMU_FAILED, and what save() throws
 */
export async function snapshotVm(options: SnapshotVmOptions): Promise<CompletedEvent> {
  throwIfAborted(options.signal);
  checkSnapshotOptions(options);
  return await withVm(options.vm, (session) => takeSnapshot(session, options));
}

async function takeSnapshot(session: VmSession, options: SnapshotVmOptions): Promise<CompletedEvent> {
  const { monitor, survey } = session;
  const { disks, live, name = timestamp() } = options;
  const written = await writableDisks(monitor);
  refuseSnapshot(session, options, written);
  const background = survey.running && live === undefined;
  if (background) refuseBackground(session);
  else await refuseBackups(monitor);
  const overlays = new DiskOverlays(disks ? planOverlays(written, name, monitor.pid) : []);

  const afterwards = survey.running ? "resume" : "pause";
  const save: SaveVmOptions = { ...options, afterwards };
  const steps = background ? backgroundSteps : survey.running ? livingSteps : standingSteps;
  const plan: SavePlan = {
    ...steps(monitor, save, overlays),
    overlays: overlays.planned,
    disks: () => (disks ? overlays.frozen(monitor) : recordDisks(monitor)),
    undo: overlays.undo.bind(overlays),
    leftovers: overlays.leftovers.bind(overlays),
    ranOn: survey.running && !disks && written.length > 0,
    afterwards,
  };
  const channels = background ? 0 : (options.channels ?? DEFAULT_CHANNELS);
  const engine = new HelperEngine(save, channels, monitor);
  return await new VmSave(session, save, plan, engine).execute().catch((error: unknown) => {
    throw background ? explainBackground(error, monitor) : error;
  });
}

/** "20260301T093000Z". */
function timestamp(): string {
  return `${new Date().toISOString().replace(/[-:]|\..*/g, "")}Z`;
}
