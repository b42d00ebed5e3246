import type { Command } from "commander";
import type { CompletedEvent } from "../../control/events.ts";
import type { VmTarget } from "../../vm/target.ts";
import { formatBytes, formatDuration } from "../format.ts";
import { addSavedImageOptions, type SavedImageFlags, savedImageOptions } from "../new-image-options.ts";
import { addTransferOptions, type TransferFlags, transferOptions } from "../options.ts";
import type { Output } from "../output.ts";
import {
  addMigrationOptions,
  addVmOptions,
  type MigrationFlags,
  migrationOptions,
  type VmFlags,
  vmTarget,
} from "../qemu-options.ts";
import { runSession, type Session } from "../session.ts";
import { usage } from "../values.ts";

interface SnapshotFlags extends TransferFlags, SavedImageFlags, VmFlags, MigrationFlags {
  readonly disks?: true;
  readonly memoryOnly?: true;
  readonly name?: string;
}

const EXAMPLE = `
Example:
  multifd-helper snapshot monday.mfd --qmp /run/vm/qmp.sock --disks --name monday
  the VM runs on; monday.mfd and its disks as they are now are its state of this moment, and what it
  writes from now on goes to FILE.snap-monday.qcow2 beside each disk

A snapshot as of the start (the default) wants QEMU 8.1 and memory that is not in a file on a disk. With --live
it is as of the end, and the VM stands still for a moment then.`;

export function addSnapshotCommand(program: Command, output: Output): void {
  const command = program
    .command("snapshot")
    .description("Saves a VM into an image while it goes on to run, with its disks at the same moment.");
  addSavedImageOptions(command, "with --live, or of a paused VM: 4");
  addVmOptions(command)
    .option("--disks", "put a qcow2 overlay over each disk that the VM writes, so that it stays as it is")
    .option("--memory-only", "leave the disks out: they are somebody else's to keep")
    .option("--name <name>", "with --disks: overlays are FILE.snap-NAME.qcow2 (default: the time)");
  addMigrationOptions(command, "save as of the end, over multifd channels; the VM stands still for the last");
  addTransferOptions(command)
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, flags: SnapshotFlags) => {
      const vm = vmTarget(flags);
      if (vm === null) throw usage("say which VM: --qmp PATH");
      const completed = await runSession(output, flags, (session) => runSnapshot(vm, image, flags, session));
      output.completed(completed, sentence(completed));
    });
}

async function runSnapshot(
  vm: VmTarget,
  image: string,
  flags: SnapshotFlags,
  session: Session,
): Promise<CompletedEvent> {
  const { disks, memoryOnly, name } = flags;
  const { snapshotVm } = await import("../../vm/snapshot/snapshot-vm.ts");
  return await snapshotVm({
    ...transferOptions(image, flags, session),
    ...(await savedImageOptions(flags)),
    ...migrationOptions(flags),
    ...{ vm, disks, memoryOnly, name },
  });
}

function sentence({ bytes, elapsedMs, image, disks = [] }: CompletedEvent): string {
  const files = disks.map(({ overlay }) => overlay).join(", ");
  const goOn = disks.length === 0 ? "" : `; what the VM writes from now on goes to ${files}`;
  return `Saved ${formatBytes(bytes)} to ${image.path} in ${formatDuration(elapsedMs)}, sealed${goOn}.`;
}
