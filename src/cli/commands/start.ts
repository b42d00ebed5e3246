import type { Command } from "commander";
import type { ManagedStartOptions, StartedVm } from "../../index.ts";
import type { ExitStatus } from "../exit.ts";
import { formatBytes, formatDuration } from "../format.ts";
import {
  addManagedOptions,
  answerAll,
  checkWhich,
  type ManagedFlags,
  tellProgress,
} from "../managed-options.ts";
import {
  addManagedTransferOptions,
  managedTransferOptions,
  type TransferFlags,
  verifyOption,
} from "../options.ts";
import type { Output } from "../output.ts";
import { writePidFile } from "../pid-file.ts";
import {
  addLaunchOptions,
  type QemuRestoreFlags,
  qemuRestoreOptions,
  refuseTogether,
  refuseWithout,
} from "../qemu-options.ts";
import { runSession, type Session } from "../session.ts";
import { stayWith } from "../stay.ts";

interface StartFlags extends TransferFlags, QemuRestoreFlags, ManagedFlags {
  readonly discard?: true;
  readonly verify?: "first" | "blocks";
}

type RestoreFacts = Omit<
  ManagedStartOptions,
  "name" | "command" | "detached" | "stdoutToStderr" | "beforeRun"
>;

const EXAMPLE = `
Example:
  multifd-helper start web -- qemu-system-x86_64 -machine q35 -m 4G …
  restores the VM that managed-save web saved, or boots it if it was not; stays until QEMU ends

  multifd-helper start web --detach
  the same with the command line of its last start

  multifd-helper start --all
  after the host has come up: every VM with a managed image

A managed image is used at most once: it is gone when its VM runs. One that may have run is never used by itself.`;

export function addStartCommand(program: Command, output: Output, status: ExitStatus): void {
  const command = program
    .command("start")
    .description("Starts a VM from its managed image, at most once, or boots it where there is none.")
    .argument("[name]", "the VM's name: letters, digits, dots, dashes, underscores")
    .argument("[qemu...]", "behind --: QEMU and its arguments, without -incoming (default: as last time)");
  addManagedOptions(command, "every VM that has a managed image, detached")
    .option("--discard", "forget the managed image, whatever state it is in, and boot")
    .addOption(verifyOption());
  addLaunchOptions(command.optionsGroup("Driving QEMU:"), "");
  addManagedTransferOptions(command)
    .addHelpText("after", EXAMPLE)
    .action(async (name: string | undefined, qemu: readonly string[], flags: StartFlags) => {
      checkWhich(name, flags);
      const { detach, pidFile } = flags;
      if (detach === undefined) refuseWithout("--detach", { pidFile });
      status.value = await (name === undefined
        ? startAll(flags, output)
        : startOne(name, qemu, flags, output));
    });
}

/** Starts the VM, and stays with it unless it is to live on by itself. @returns the exit status */
async function startOne(
  name: string,
  command: readonly string[],
  flags: StartFlags,
  output: Output,
): Promise<number> {
  const { detach = false, json = false, pidFile } = flags;
  return await runSession(output, flags, async (session) => {
    const { managedStart } = await import("../../vm/managed/start.ts");
    const vm = await managedStart({
      ...startOptions(flags, session),
      name,
      command: command.length === 0 ? undefined : command,
      detached: detach,
      stdoutToStderr: json,
      beforeRun: async ({ pid }) => {
        if (pidFile !== undefined) writePidFile(pidFile, pid);
      },
    });
    output.completed({ event: "started", name, ...facts(vm) }, sentence(vm));
    return detach ? 0 : await stayWith(vm.qemu, session);
  });
}

async function startAll(flags: StartFlags, output: Output): Promise<number> {
  const { discard, uuid, pidFile, jobs } = flags;
  refuseTogether("--all", { discard, uuid, pidFile });
  const outcomes = await runSession(output, flags, async (session) => {
    const { managedStartAll } = await import("../../vm/managed/all.ts");
    return await managedStartAll({ ...startOptions(flags, session), jobs, onEvent: tellProgress(output) });
  });
  const tell = (_name: string, vm: StartedVm) => ({ facts: { started: facts(vm) }, sentence: sentence(vm) });
  return await answerAll(outcomes, output, tell, "No VM has a managed image.");
}

function startOptions(flags: StartFlags, session: Session): RestoreFacts {
  const { stateDir, discard, verify } = flags;
  return {
    ...managedTransferOptions(flags, session),
    ...qemuRestoreOptions(flags),
    stateDirectory: stateDir,
    discard,
    verify,
  };
}

function facts({ completed, qemu }: StartedVm): { readonly from: "image" | "boot"; readonly pid: number } {
  return { from: completed === null ? "boot" : "image", pid: qemu.pid };
}

function sentence({ completed, qemu }: StartedVm): string {
  const how =
    completed === null
      ? "Booted, without a managed image."
      : `Restored ${formatBytes(completed.bytes)} in ${formatDuration(completed.elapsedMs)}; the managed image is used up.`;
  return `${how} QEMU is process ${qemu.pid}.`;
}
