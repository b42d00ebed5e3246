import type { Command } from "commander";
import { addImageOptions, type ImageFlags } from "../options.ts";
import type { Output } from "../output.ts";

const EXAMPLE = `
Example:
  multifd-helper inspect vm.mfd

Only the index is read: verify reads everything.`;

export function addInspectCommand(program: Command, output: Output): void {
  addImageOptions(program.command("inspect"))
    .description("Tells what an image is, whether it is sealed, and what the destination QEMU must be.")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, flags: ImageFlags) => {
      const { inspect } = await import("../../index.ts");
      const { describeImage } = await import("../inspect-page.ts");
      const report = await inspect({ image, offset: flags.offset });
      await output.answer(report, describeImage(report));
    });
}
