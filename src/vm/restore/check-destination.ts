import type { Log } from "../../control/options.ts";
import { MultifdError } from "../../errors.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { checkDisks } from "../disks/check.ts";
import { recordLayers } from "../disks/record.ts";
import { type Survey, surveyVm } from "../survey.ts";
import { type Comparison, compareVm } from "./compare.ts";
import type { SavedImage } from "./saved-image.ts";

/**
 * Whether a QEMU waits for an image and is the VM in this one, with its disks as they were. Nothing is changed.
 * @throws MultifdError VM_STATE, VM_MISMATCH, DISK_CHANGED, QEMU_FAILED
 */
export async function checkDestination(
  monitor: Monitor,
  saved: SavedImage,
  comparison: Comparison,
  log: Log,
): Promise<Survey> {
  const survey = await surveyVm(monitor);
  refuseUnlessWaiting(survey.status, survey.migration, comparison.place);
  await compareVm(saved.report, survey, monitor, comparison, log);
  const disks = saved.report.metadata?.vm?.disks ?? [];
  try {
    await checkDisks(disks, await recordLayers(monitor), saved.report.path);
  } catch (error) {
    if (!comparison.force) throw error;
    log.warn({}, `${(error as Error).message}; going on because of --force`);
  }
  return survey;
}

/** @throws MultifdError VM_STATE */
function refuseUnlessWaiting(status: string, migration: string, place: string): void {
  if (status === "inmigrate" && migration === "none") return;
  const why =
    status !== "inmigrate"
      ? `it is in the state ${status}: start it with -incoming defer -S`
      : `its migrate-incoming was used already (${migration}): start it anew`;
  throw new MultifdError("VM_STATE", `${place} does not wait for an image: ${why}`, {
    status,
    migration,
  });
}
