import type { SavedVm } from "../../control/options.ts";
import type { DiskRecord } from "../../formats/image/model.ts";
import type { Survey } from "../survey.ts";
import type { SavePlan } from "./plan.ts";

/** What the image says of the VM. */
export function recordOf(
  survey: Survey,
  { ranOn }: Pick<SavePlan, "ranOn">,
  disks: readonly DiskRecord[],
): SavedVm {
  const { qemuVersion, uuid, accelerator, commandLine, cpuModel, cpus, ramBytes, devices, running } = survey;
  return {
    qemuVersion,
    record: { uuid, accelerator, commandLine, cpuModel, cpus, ramBytes, running, ranOn, disks, devices },
  };
}
