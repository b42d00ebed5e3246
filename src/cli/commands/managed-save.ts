import type { Command } from "commander";
import type { CompletedEvent, ManagedSaveOptions } from "../../index.ts";
import type { ExitStatus } from "../exit.ts";
import { MAX_CHANNELS, parseChannels } from "../expect.ts";
import { formatBytes, formatDuration } from "../format.ts";
import {
  addManagedOptions,
  answerAll,
  checkWhich,
  type ManagedFlags,
  tellProgress,
} from "../managed-options.ts";
import { addManagedTransferOptions, managedTransferOptions, type TransferFlags, valued } from "../options.ts";
import type { Output } from "../output.ts";
import {
  addMigrationOptions,
  addVmOptions,
  type MigrationFlags,
  migrationOptions,
  refuseTogether,
  type VmFlags,
  vmTarget,
} from "../qemu-options.ts";
import { runSession, type Session } from "../session.ts";
import { parseChoice } from "../values.ts";

interface ManagedSaveFlags extends TransferFlags, MigrationFlags, VmFlags, ManagedFlags {
  readonly channels?: number;
  readonly checksum?: "crc32" | "none";
}

const EXAMPLE = `
Example:
  multifd-helper managed-save web
  saves a VM that start has started, and ends it; start web brings it back

  multifd-helper managed-save web --qmp /run/web/qmp.sock
  the same for a VM that was started in another way

  multifd-helper managed-save --all
  before the host goes down

A managed image that is there already is older than the VM that runs: the new one replaces it once it is complete.`;

export function addManagedSaveCommand(program: Command, output: Output, status: ExitStatus): void {
  const command = program
    .command("managed-save")
    .description("Saves a VM under its name and ends it, for start to bring it back.")
    .argument("[name]", "the VM's name: letters, digits, dots, dashes, underscores");
  addManagedOptions(command, "every VM that start has started and that runs");
  addMigrationOptions(
    addVmOptions(command),
    "let the VM run while it is saved, and stop it for the last of it only",
  )
    .addOption(valued("--channels <n>", `multifd channels, 0 to ${MAX_CHANNELS} (default: 4)`, parseChannels))
    .addOption(
      valued(
        "--checksum <method>",
        "crc32 or none (default: crc32)",
        parseChoice(["crc32", "none"] as const),
      ),
    );
  addManagedTransferOptions(command)
    .addHelpText("after", EXAMPLE)
    .action(async (name: string | undefined, flags: ManagedSaveFlags) => {
      checkWhich(name, flags);
      if (name === undefined) status.value = await saveAll(flags, output);
      else {
        const completed = await runSession(output, flags, async (session) => {
          const { managedSave } = await import("../../vm/managed/managed-save.ts");
          return await managedSave({
            ...saveOptions(flags, session),
            name,
            vm: vmTarget(flags) ?? undefined,
          });
        });
        output.completed(completed, `${sentence(completed)} start ${name} brings it back.`);
      }
    });
}

async function saveAll(flags: ManagedSaveFlags, output: Output): Promise<number> {
  refuseTogether("--all", { qmp: flags.qmp });
  const outcomes = await runSession(output, flags, async (session) => {
    const { managedSaveAll } = await import("../../vm/managed/all.ts");
    const onEvent = tellProgress(output);
    return await managedSaveAll({ ...saveOptions(flags, session), jobs: flags.jobs, onEvent });
  });
  const tell = (_name: string, completed: CompletedEvent) => {
    const { bytes, elapsedMs, image } = completed;
    return { facts: { saved: { bytes, elapsedMs, image } }, sentence: sentence(completed) };
  };
  return await answerAll(outcomes, output, tell, "No VM runs that start has started.");
}

function saveOptions(flags: ManagedSaveFlags, session: Session): Omit<ManagedSaveOptions, "name" | "vm"> {
  const { stateDir, channels, checksum } = flags;
  return {
    ...managedTransferOptions(flags, session),
    ...migrationOptions(flags),
    stateDirectory: stateDir,
    channels,
    checksum,
  };
}

function sentence({ bytes, elapsedMs, image }: CompletedEvent): string {
  return `Saved ${formatBytes(bytes)} to ${image.path} in ${formatDuration(elapsedMs)}; the VM has ended.`;
}
