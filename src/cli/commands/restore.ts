import type { Command } from "commander";
import type { CompletedEvent, Expectations } from "../../index.ts";
import { mergeExpectations, parseChannels, parseExpect } from "../expect.ts";
import { formatBytes, formatChannels, formatDuration, formatRate } from "../format.ts";
import { addTransferOptions, type TransferFlags, transferOptions, valued } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession } from "../session.ts";

interface RestoreFlags extends TransferFlags {
  readonly connect: string;
  readonly expect?: Expectations;
  readonly channels?: number;
}

const EXAMPLE = `
Example:
  multifd-helper inspect vm.mfd      (tells what the destination must be, and the QMP commands to type)
  multifd-helper restore vm.mfd --connect unix:/run/vm/restore.sock

Exit status 0 means delivered: whether QEMU accepted it, query-migrate tells.`;

export function addRestoreCommand(program: Command, output: Output): void {
  const command = program
    .command("restore")
    .description(
      "Checks an image, connects to a QEMU that waits in migrate-incoming, and feeds its channels.",
    )
    .requiredOption("--connect <address>", "unix:PATH or tcp:HOST:PORT where QEMU listens")
    .addOption(
      valued(
        "--expect <list>",
        "refuse another image: channels=N,uuid=UUID|none,machine=NAME, any of them",
        parseExpect,
      ),
    )
    .addOption(valued("--channels <n>", "short for --expect channels=N", parseChannels));
  addTransferOptions(command)
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, flags: RestoreFlags) => {
      const expect = mergeExpectations(flags.expect, flags.channels);
      const completed = await runSession(output, flags, async (session) => {
        const { restore } = await import("../../index.ts");
        return restore({ ...transferOptions(image, flags, session), connect: flags.connect, expect });
      });
      output.completed(completed, deliveredSentence(completed));
    });
}

function deliveredSentence({ bytes, elapsedMs, image }: CompletedEvent): string {
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  const channels = formatChannels(image.multifdChannels);
  return `Delivered ${formatBytes(bytes)} over ${channels} from ${image.path} in ${formatDuration(elapsedMs)} (${rate}); query-migrate tells whether QEMU accepted it.`;
}
