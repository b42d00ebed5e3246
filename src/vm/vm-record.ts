import type { SavedVm } from "../control/options.ts";
import type { Then } from "./journal.ts";
import type { Survey } from "./survey.ts";

/** What the image says of the VM. */
export function recordOf(survey: Survey, then: Then | undefined, disks: SavedVm["record"]["disks"]): SavedVm {
  const { qemuVersion, accelerator, commandLine, cpuModel, cpus, ramBytes, devices, running } = survey;
  const ranOn = then === "resume";
  return {
    qemuVersion,
    record: { accelerator, commandLine, cpuModel, cpus, ramBytes, running, ranOn, disks, devices },
  };
}
