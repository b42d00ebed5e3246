import type { Command } from "commander";
import type { DemoStep } from "../../demo/demo.ts";
import { describeStep, doingAfter } from "../demo-page.ts";
import { valued } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession } from "../session.ts";
import { parseInteger, parseRam } from "../values.ts";

interface DemoFlags {
  readonly ram: number;
  readonly channels: number;
  readonly qemu?: string;
  readonly dir?: string;
  readonly ramDir?: string;
}

const GIB = 2 ** 30;

const EXAMPLE = `
Example:
  multifd-helper demo --ram 2G --channels 8

A real QEMU starts, paused, with random, patterned and zero pages in its RAM. It is saved over parallel
multifd channels into one image, verified, restored into a second QEMU, and both RAMs are compared bit
for bit. Nothing is left behind, and nothing on this machine is changed.`;

export function addDemoCommand(program: Command, output: Output): void {
  program
    .command("demo")
    .description("Saves and restores a real VM before your eyes and compares its RAM.")
    .addOption(valued("--ram <bytes>", "the guest's RAM", parseRam).default(GIB, "1G"))
    .addOption(valued("--channels <n>", "multifd channels, 1 to 255", parseInteger(1, 255)).default(4))
    .option("--qemu <path>", "which QEMU (default: the newest here)")
    .option("--dir <path>", "where the image lies for a while (default: on a disk with room)")
    .option("--ram-dir <path>", "where both guests' RAM lies for a while (default: in memory)")
    .option("--json", "write one JSON object to stdout and nothing else")
    .addHelpText("after", EXAMPLE)
    .action(async (flags: DemoFlags) => {
      const steps: DemoStep[] = [];
      const onStep = (step: DemoStep): void => {
        steps.push(step);
        output.tell(describeStep(step), doingAfter(step));
      };
      output.tell("", "looking for QEMU and for room");
      // Warnings of the library are told in the steps' own words.
      await runSession(output, { logLevel: "error" }, async ({ signal, log, onEvent }) => {
        const { runDemo } = await import("../../demo/demo.ts");
        const { ram: ramBytes, channels, qemu, dir: imageDirectory, ramDir: ramDirectory } = flags;
        await runDemo({
          ramBytes,
          channels,
          qemu,
          imageDirectory,
          ramDirectory,
          signal,
          log,
          onStep,
          onEvent: (event) => {
            if (event.event === "progress") onEvent(event);
          },
        });
      });
      const report = Object.fromEntries(steps.map(({ step, ...facts }) => [step, facts]));
      await output.answer(report, CONCLUSION);
    });
}

const CONCLUSION = "\nThe guest came back bit for bit.\n";
