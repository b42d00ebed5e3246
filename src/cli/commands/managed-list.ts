import type { Command } from "commander";
import type { ManagedImage } from "../../index.ts";
import { formatBytes } from "../format.ts";
import { addStateDirOption } from "../managed-options.ts";
import type { Output } from "../output.ts";
import { printable } from "../section.ts";

const EXAMPLE = `
Example:
  multifd-helper managed-list

States: ready; resuming (a start was killed when it let this VM run: it may have run); unfinished (its save goes on, or was
killed); damaged. Only the index is read: verify reads everything.`;

export function addManagedListCommand(program: Command, output: Output): void {
  addStateDirOption(program.command("managed-list"))
    .description("Lists the managed images and the state that they are in.")
    .option("--json", "write JSON to stdout and nothing else")
    .addHelpText("after", EXAMPLE)
    .action(async ({ stateDir }: { readonly stateDir?: string }) => {
      const { managedList } = await import("../../vm/managed/list.ts");
      const images = await managedList(stateDir);
      await output.answer({ images }, describe(images));
    });
}

function describe(images: readonly ManagedImage[]): string {
  if (images.length === 0) return "There are no managed images.\n";
  const rows = [["NAME", "STATE", "SIZE", "CREATED", "MACHINE"], ...images.map(rowOf)];
  const widths = rows.reduce<number[]>(
    (widest, row) => row.map((cell, i) => Math.max(cell.length, widest[i] ?? 0)),
    [],
  );
  const lines = rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i] as number)).join("  "));
  const problems = images.flatMap(({ name, problem }) => (problem === null ? [] : [`${name}: ${problem}`]));
  return [...lines, ...problems].map((line) => `${printable(line.trimEnd())}\n`).join("");
}

function rowOf({ name, state, bytes, created, machine }: ManagedImage): string[] {
  return [name, state, formatBytes(bytes), created ?? "-", machine ?? "-"];
}
