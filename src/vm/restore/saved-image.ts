import { namedUuid } from "../../control/destination-needs.ts";
import { inspect } from "../../control/inspect.ts";
import { refuseRanOn } from "../../control/instant/ran-on.ts";
import type {
  LibvirtReport,
  MappedRamReport,
  QemuStreamReport,
  RestorableReport,
} from "../../control/reports.ts";
import { MultifdError } from "../../errors.ts";
import { unreadable } from "../engine-file/restore.ts";
import type { RestoreVmOptions } from "./restore-vm.ts";

/** An image that a VM can be restored from, and what it says of the VM. */
export interface SavedImage {
  readonly report: RestorableReport;
  /** null: the VM had none; undefined: nothing in the image tells. */
  readonly uuid: string | null | undefined;
  /** Whether the VM ran when it was saved; false where nothing tells. */
  readonly running: boolean;
}

/**
 * Reads what the image says; what can be refused without a QEMU is refused here.
 * @throws MultifdError NOT_SEALED, NOT_AN_IMAGE, VM_RAN_ON, USAGE (not for this engine), and what inspect() throws
 */
export async function readSaved(
  options: Pick<RestoreVmOptions, "image" | "offset" | "force" | "engine">,
): Promise<SavedImage> {
  const report = await inspect({ image: options.image, offset: options.offset });
  if (report.format === "qemu-stream" || report.format === "libvirt") return readForeign(report, options);
  if (!report.sealed && !isForeign(report)) {
    const text = `${options.image} was never finished: its save failed or is still going on; use another image`;
    throw new MultifdError("NOT_SEALED", text, {});
  }
  if (report.format === "stream" && options.engine === "file") throw unreadable();
  if (report.format === "mapped-ram") refuseResumed(report, options);
  if (report.metadata?.vm?.ranOn && options.force !== true) {
    const text = `the VM in ${options.image} ran on after it was saved, so that its disks do not fit its memory any more; use --force if it has none, or if you have the disks of that moment`;
    throw new MultifdError("VM_RAN_ON", text, {});
  }
  return { report, uuid: savedUuid(report), running: report.metadata?.vm?.running ?? false };
}

/** What libvirt calls sparse is mapped-ram behind a header of its own. */
function readForeign(
  report: QemuStreamReport | LibvirtReport,
  options: Pick<RestoreVmOptions, "image" | "force">,
): SavedImage {
  if (report.format === "libvirt" && !report.complete) {
    const text = `libvirt never finished ${report.path}: use another image`;
    throw new MultifdError("NOT_SEALED", text, {});
  }
  if (report.format === "libvirt" && report.contents?.format === "mapped-ram") {
    refuseResumed(report.contents, options);
    return { report: report.contents, uuid: report.vmUuid ?? undefined, running: report.running };
  }
  const what = report.format === "libvirt" ? "an image of libvirt" : "a migration stream as QEMU sent it";
  const text = `${report.path} is ${what}: inspect shows how to restore it; or make an image of it with convert`;
  throw new MultifdError("NOT_AN_IMAGE", text, {});
}

/** With --force whoever loads the image warns. */
function refuseResumed(
  { resumed }: MappedRamReport,
  options: Pick<RestoreVmOptions, "image" | "force">,
): void {
  if (options.force !== true) refuseRanOn(resumed, options);
}

/** QEMU alone wrote it, and it may be whole. */
function isForeign(report: RestorableReport): boolean {
  return report.format === "mapped-ram" && report.seal === "none of multifd-helper";
}

function savedUuid({ metadata }: RestorableReport): string | null | undefined {
  if (metadata?.vm) return metadata.vm.uuid;
  return metadata?.vmUuid == null ? undefined : namedUuid(metadata.vmUuid);
}
