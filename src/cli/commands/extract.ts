import type { Command } from "commander";
import { formatBytes, formatDuration } from "../format.ts";
import { addRunOptions, type RunFlags, runOptions } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession } from "../session.ts";

interface ExtractFlags extends RunFlags {
  readonly block: string;
  readonly force?: true;
}

const EXAMPLE = `
Example:
  multifd-helper extract vm.mfd ram.bin --block pc.ram
  the guest's memory as it was: page n at n times its size; inspect shows the blocks' names`;

export function addExtractCommand(program: Command, output: Output): void {
  const command = program
    .command("extract")
    .description("Writes the memory of one RAMBlock of an image of any kind to a file.")
    .requiredOption("--block <name>", "which RAMBlock")
    .option("--force", "go on where the end of the stream proves nothing");
  addRunOptions(command)
    .argument("<output>", "the file")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, file: string, flags: ExtractFlags) => {
      const completed = await runSession(output, flags, async (session) => {
        const { extract } = await import("../../control/convert/extract.ts");
        const { block, force } = flags;
        return await extract({ ...runOptions(image, flags, session), output: file, block, force });
      });
      const size = formatBytes(completed.image.bytes);
      const time = formatDuration(completed.elapsedMs);
      output.completed(completed, `Extracted ${flags.block}, ${size}, to ${file} in ${time}.`);
    });
}
