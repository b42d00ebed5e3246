import type { Command } from "commander";
import type { Recovery } from "../../index.ts";
import type { Output } from "../output.ts";
import { addDomainOptions, type VmFlags, vmTarget } from "../qemu-options.ts";
import { usage } from "../values.ts";

interface RecoverFlags extends VmFlags {
  readonly cont?: true;
}

const EXAMPLE = `
Example:
  multifd-helper recover --qmp /run/vm/qmp.sock

A save that is killed leaves a guardian, which does this by itself within moments. It is for the day on which both were
killed. Name the VM as that save did: what it was like is written down under that name.`;

export function addRecoverCommand(program: Command, output: Output): void {
  addDomainOptions(program.command("recover"))
    .description(
      "Puts a VM right after a killed save: cancels its migration, restores its settings, lets it run on.",
    )
    .option("--cont", "let a paused VM run even if nothing tells that it ran")
    .option("--json", "write JSON to stdout and nothing else")
    .addHelpText("after", EXAMPLE)
    .action(async (flags: RecoverFlags) => {
      const vm = vmTarget(flags);
      if (vm === null) throw usage("say which VM: --qmp PATH or --virsh DOMAIN");
      const { recover } = await import("../../vm/guard/recover.ts");
      const recovery = await recover({ vm, run: flags.cont });
      await output.answer(recovery, describe(recovery));
    });
}

function describe({ journal, state, migration, overlays }: Recovery): string {
  const word = journal ? "as its killed save left word" : "no killed save left word of how it was";
  const hint = !journal && state !== "running" ? "; --cont lets it run" : "";
  const disks =
    overlays.length === 0 ? "" : `; its disks go on in ${overlays.join(", ")}: keep what is below`;
  return `The VM is ${state}, its last migration ${migration} (${word})${hint}${disks}.\n`;
}
