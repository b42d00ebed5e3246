import type { Command } from "commander";
import { addStateDirOption } from "../managed-options.ts";
import type { Output } from "../output.ts";

const EXAMPLE = `
Example:
  multifd-helper managed-remove web

The VM's saved state is lost: its next start boots it.`;

export function addManagedRemoveCommand(program: Command, output: Output): void {
  addStateDirOption(program.command("managed-remove"))
    .description("Removes the managed image of a VM, or what a killed start left of it.")
    .argument("<name>", "the VM's name")
    .option("--json", "write JSON to stdout and nothing else")
    .addHelpText("after", EXAMPLE)
    .action(async (name: string, { stateDir }: { readonly stateDir?: string }) => {
      const { managedRemove } = await import("../../vm/managed/list.ts");
      const removed = await managedRemove({ name, stateDirectory: stateDir });
      await output.answer({ name, removed }, removed.map((file) => `Removed ${file}.\n`).join(""));
    });
}
