import type { Command } from "commander";
import type { CompletedEvent, RestoreVmOptions } from "../../index.ts";
import type { ExitStatus } from "../exit.ts";
import { parseChannels, parseExpect } from "../expect.ts";
import { formatDuration, formatMoved, formatRate } from "../format.ts";
import { addInstantOptions, checkInstantFlags, isInstant } from "../instant-options.ts";
import { type InstantRestoreFlags, restoreAtOnce } from "../instant-restore.ts";
import { launchOptions } from "../launch-options.ts";
import { addTransferOptions, transferOptions, valued } from "../options.ts";
import type { Output } from "../output.ts";
import {
  addQemuRestoreOptions,
  qemuRestoreFlags,
  qemuRestoreOptions,
  refuseTogether,
  refuseWithout,
} from "../qemu-options.ts";
import { runSession, type Session } from "../session.ts";
import { stayWith } from "../stay.ts";
import { parseChoice, usage } from "../values.ts";

interface RestoreFlags extends InstantRestoreFlags {
  readonly channels?: number;
  readonly zeroedRam?: true;
}

const EXAMPLE = `
Example:
  multifd-helper restore vm.mfd -- qemu-system-x86_64 -machine q35 -m 4G …
  starts QEMU with these arguments, restores the VM and lets it run if it ran; stays until QEMU ends, and ends
  with its exit status (--detach: ends when the VM is restored)

  multifd-helper restore vm.mfd --qmp /run/vm/qmp.sock
  the same into a QEMU that was started with -incoming defer -S

  multifd-helper restore vm.mfd --connect unix:/run/vm/restore.sock
  feeds a QEMU that waits in migrate-incoming; exit status 0 means delivered: whether QEMU accepted it, query-migrate tells

Channels and compression are taken from an image of streams. A mapped-ram image, also one that QEMU or libvirt (format
sparse) wrote without us, is sent through as many channels as --channels says, each range checked before it goes, to any
QEMU; with --engine file QEMU (9.0 and later) reads it itself and checks none of its pages.

  multifd-helper restore vm.mr --instant -- qemu-system-x86_64 -machine q35 -m 4G …
  the VM runs after milliseconds, and gets its RAM as it needs it; from then on image and VM are used up together

  multifd-helper restore vm.mr --resume --qmp /run/vm/qmp.sock
  goes on where an instant restore was killed: the VM waits for the rest of its RAM`;

export function addRestoreCommand(program: Command, output: Output, status: ExitStatus): void {
  const command = program
    .command("restore")
    .description(
      "Checks an image and restores it: starts a QEMU (--), drives one (--qmp), or feeds one (--connect).",
    )
    .option("--connect <address>", "unix:PATH or tcp:HOST:PORT where QEMU listens")
    .addOption(
      valued(
        "--expect <list>",
        "refuse another image: channels=N,uuid=UUID|none,machine=NAME, any of them",
        parseExpect,
      ),
    )
    .addOption(
      valued(
        "--channels <n>",
        "the destination's: as the image says; for a mapped-ram image any, 0: multifd off (default: 4)",
        parseChannels,
      ),
    )
    .option(
      "--zeroed-ram",
      "with --connect: the destination's RAM is zero, so leave zero pages of a mapped-ram image out",
    )
    .addOption(
      valued(
        "--verify <when>",
        "first: the whole image before connecting; blocks, with --instant lazy: each before it is sent (default)",
        parseChoice(["first", "blocks", "lazy"] as const),
      ),
    );
  addQemuRestoreOptions(command);
  addInstantOptions(command);
  addTransferOptions(command)
    .argument("[qemu...]", "behind --: QEMU and its arguments, without -incoming")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, qemu: readonly string[], flags: RestoreFlags) => {
      checkWay(flags, qemu);
      checkInstantFlags(flags);
      if (isInstant(flags)) status.value = await restoreAtOnce(image, qemu, flags, output);
      else if (qemu.length > 0) status.value = await launch(image, qemu, flags, output);
      else {
        const completed = await runSession(output, flags, (session) => restoreInto(image, flags, session));
        output.completed(completed, sentence(completed, flags.connect !== undefined));
      }
    });
}

/** There are three ways to name a destination; some options belong to some of them. */
function checkWay(flags: RestoreFlags, qemu: readonly string[]): void {
  const { connect, qmp, detach, pidFile, zeroedRam } = flags;
  const ways = [connect, qmp, qemu[0]].filter((way) => way !== undefined).length;
  if (ways !== 1) {
    throw usage("say where to restore to, one of: -- QEMU ARGS…, --qmp PATH, --connect ADDRESS");
  }
  if (connect !== undefined) refuseTogether("--connect", qemuRestoreFlags(flags));
  else refuseWithout("--connect", { zeroedRam });
  if (qmp !== undefined) refuseTogether("--qmp", { detach, pidFile });
  if (detach === undefined) refuseWithout("--detach", { pidFile });
}

async function restoreInto(image: string, flags: RestoreFlags, session: Session): Promise<CompletedEvent> {
  const options = restoreOptions(image, flags, session);
  const { connect, zeroedRam } = flags;
  if (connect !== undefined) {
    const { restore } = await import("../../control/restore.ts");
    return await restore({ ...options, connect, zeroedRam });
  }
  const { restoreVm } = await import("../../vm/restore/restore-vm.ts");
  return await restoreVm({ ...options, vm: { qmp: flags.qmp as string } });
}

/** Starts QEMU, and stays with it unless it is to live on by itself. @returns the exit status */
async function launch(
  image: string,
  command: readonly string[],
  flags: RestoreFlags,
  output: Output,
): Promise<number> {
  const { detach = false } = flags;
  return await runSession(output, flags, async (session) => {
    const { restoreLaunched } = await import("../../vm/restore/restore-launched.ts");
    const options = restoreOptions(image, flags, session);
    const { completed, qemu } = await restoreLaunched({
      ...options,
      ...launchOptions(command, flags),
    });
    output.completed(completed, `${sentence(completed, false)} QEMU is process ${qemu.pid}.`);
    return detach ? 0 : await stayWith(qemu, session);
  });
}

function restoreOptions(image: string, flags: RestoreFlags, session: Session): RestoreVmOptions {
  const { expect, channels, verify } = flags;
  return {
    ...transferOptions(image, flags, session),
    ...qemuRestoreOptions(flags),
    expect,
    channels,
    verify: verify === "lazy" ? undefined : verify,
  };
}

function sentence(completed: CompletedEvent, deliveredOnly: boolean): string {
  const { bytes, elapsedMs, image } = completed;
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  const what = formatMoved(completed, "read");
  const moved = `${what} from ${image.path} in ${formatDuration(elapsedMs)} (${rate})`;
  return deliveredOnly
    ? `Delivered ${moved}; query-migrate tells whether QEMU accepted it.`
    : `Restored ${moved}.`;
}
