import type { Command } from "commander";
import type { DiffReport } from "../../index.ts";
import type { DiffCompletedEvent } from "../events.ts";
import { addRunOptions, type RunFlags, runOptions, valued } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession } from "../session.ts";
import { parseSize } from "../values.ts";

interface DiffFlags extends RunFlags {
  readonly otherOffset?: number;
}

const EXAMPLE = `
Example:
  multifd-helper diff monday.mfd tuesday.mr
  how many pages differ, block by block; the images may be of different kinds

Exit status 0 says that both were read, whether they differ or not: the answer tells.`;

export function addDiffCommand(program: Command, output: Output): void {
  const command = program
    .command("diff")
    .description("Counts the pages of RAM that differ between two images of any kind.")
    .addOption(valued("--other-offset <bytes>", "as --offset, of the other image (default: 0)", parseSize));
  addRunOptions(command)
    .argument("<other>", "path of the other image, or fd:N")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, other: string, flags: DiffFlags) => {
      const report = await runSession(output, flags, async (session) => {
        const { diff } = await import("../../control/convert/diff.ts");
        const { otherOffset } = flags;
        return await diff({ ...runOptions(image, flags, session), other, otherOffset });
      });
      output.completed(completedEvent(report), describe(report));
    });
}

function completedEvent({ path, other, ...report }: DiffReport): DiffCompletedEvent {
  return { event: "completed", image: { path }, other: { path: other }, ...report };
}

function describe({ path, other, pages, differing, blocks, unmatched }: DiffReport): string {
  const rows = blocks
    .filter((block) => block.differing > 0)
    .map(
      ({ name, pages, differing, firstDiffering }) =>
        `  ${name}: ${differing} of ${pages} pages, the first at ${firstDiffering}`,
    );
  const alone = unmatched.map((name) => `  ${name}: only in one of them, or of another size`);
  const verdict = `${differing} of ${pages} pages differ between ${path} and ${other}.`;
  return [...rows, ...alone, verdict].join("\n");
}
