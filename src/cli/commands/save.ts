import type { Command } from "commander";
import type { CompletedEvent } from "../../control/events.ts";
import type { VmTarget } from "../../vm/target.ts";
import { formatDuration, formatMoved, formatRate } from "../format.ts";
import { Hold } from "../hold.ts";
import { addSavedImageOptions, type SavedImageFlags, savedImageOptions } from "../new-image-options.ts";
import { addTransferOptions, repeatable, type TransferFlags, transferOptions } from "../options.ts";
import type { Output } from "../output.ts";
import {
  addQemuSaveOptions,
  type QemuSaveFlags,
  qemuFlags,
  qemuSaveOptions,
  refuseTogether,
  vmTarget,
} from "../qemu-options.ts";
import { runSession, type Session } from "../session.ts";
import { parseInteger, usage } from "../values.ts";

interface SaveFlags extends TransferFlags, SavedImageFlags, QemuSaveFlags {
  readonly listen?: string;
  readonly allowRemote?: true;
  readonly allowUid?: readonly number[];
  readonly discardBacklog?: true;
  readonly hold?: true;
}

/** The kernel keeps 2^32 - 1 for "no user". */
const parseUid = parseInteger(0, 2 ** 32 - 2);

const EXAMPLE = `
Example:
  multifd-helper save vm.mfd --qmp /run/vm/qmp.sock
  stops the VM, saves it over 4 channels, and ends it when the image is on disk; if anything fails, the VM goes on

  multifd-helper save vm.mfd --qmp /run/vm/qmp.sock --live --max-seconds 60 --then pause
  lets the VM run while it is saved, for a minute at most, and leaves it paused

  multifd-helper save vm.mfd --listen unix:/run/vm/save.sock --channels 4
  then, in QEMU: migrate to unix:/run/vm/save.sock with multifd on and multifd-channels 4`;

export function addSaveCommand(program: Command, output: Output): void {
  const command = program
    .command("save")
    .description(
      "Saves a VM into an image: drives QEMU (--qmp, --virsh), or waits for one that migrates (--listen).",
    )
    .option("--listen <address>", "wait for QEMU at unix:PATH, tcp:HOST:PORT, or fd:N (a listening socket)")
    .option("--allow-remote", "accept a tcp address that is not loopback")
    .addOption(repeatable("--allow-uid <uid>", "let this user's QEMU connect, too (repeatable)", parseUid))
    .option("--discard-backlog", "close what waits on fd:N already: a migration that failed left it")
    .option("--hold", "seal only after the line commit on stdin; abort or end of input discards");
  addSavedImageOptions(command, "any complete set; with --qmp: 4");
  addQemuSaveOptions(command);
  addTransferOptions(command)
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, flags: SaveFlags) => {
      const target = vmTarget(flags);
      if (target === null) checkDataPlaneFlags(flags);
      else checkQemuFlags(flags);
      const completed = await runSession(output, flags, (session) =>
        target === null ? runSave(image, flags, session) : runVmSave(target, image, flags, session),
      );
      output.completed(
        completed,
        savedSentence(completed, target === null ? undefined : (flags.then ?? "quit")),
      );
    });
}

/** What only makes sense when somebody else drives QEMU. */
function checkQemuFlags(flags: SaveFlags): void {
  const { listen, allowRemote, allowUid, discardBacklog, hold } = flags;
  const foreign = { listen, allowRemote, allowUid, discardBacklog, hold };
  refuseTogether(flags.qmp === undefined ? "--virsh" : "--qmp", foreign);
  // QEMU writes by itself: there are no streams of ours to be watched or bounded.
  const { engine, maxBytes, connectTimeout, stallTimeout } = flags;
  if (engine === "file") refuseTogether("--engine file", { maxBytes, connectTimeout, stallTimeout });
}

function checkDataPlaneFlags(flags: SaveFlags): void {
  if (flags.listen === undefined)
    throw usage("say which VM: --qmp PATH or --virsh DOMAIN, or --listen ADDRESS to wait for one");
  refuseTogether("--listen", qemuFlags(flags));
}

async function runVmSave(
  vm: VmTarget,
  image: string,
  flags: SaveFlags,
  session: Session,
): Promise<CompletedEvent> {
  const { saveVm } = await import("../../vm/save/save-vm.ts");
  return await saveVm({
    ...transferOptions(image, flags, session),
    ...(await savedImageOptions(flags)),
    ...qemuSaveOptions(flags),
    vm,
  });
}

async function runSave(image: string, flags: SaveFlags, session: Session): Promise<CompletedEvent> {
  // Listening to stdin starts first, so that an abort is heard during start-up, too.
  const { cancel, log, outliveParent } = session;
  const hold = flags.hold ? new Hold(process.stdin, cancel, log, outliveParent) : undefined;
  try {
    const { save } = await import("../../control/save.ts");
    return await save({
      ...transferOptions(image, flags, session),
      ...(await savedImageOptions(flags)),
      listen: flags.listen as string,
      allowRemote: flags.allowRemote,
      allowUids: flags.allowUid,
      discardBacklog: flags.discardBacklog,
      confirm: hold?.confirm,
    });
  } finally {
    hold?.close();
  }
}

const FATES = { quit: "the VM has ended", pause: "the VM stays paused", resume: "the VM runs on" } as const;

function savedSentence(completed: CompletedEvent, then?: keyof typeof FATES): string {
  const { bytes, elapsedMs, image } = completed;
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  const moved = formatMoved(completed, "written");
  return `Saved ${moved} to ${image.path} in ${formatDuration(elapsedMs)} (${rate}), sealed${then === undefined ? "" : `; ${FATES[then]}`}.`;
}
