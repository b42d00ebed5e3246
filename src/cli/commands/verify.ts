import type { Command } from "commander";
import type { VerifyReport } from "../../index.ts";
import type { VerifyCompletedEvent } from "../events.ts";
import { formatBytes, formatDuration, formatRate } from "../format.ts";
import { addRunOptions, type RunFlags, runOptions } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession } from "../session.ts";

const EXAMPLE = `
Example:
  multifd-helper verify vm.mfd && echo intact

An image saved with --checksum none, and one that QEMU or libvirt wrote by itself, has only its structure to check; the
answer says so.`;

export function addVerifyCommand(program: Command, output: Output): void {
  addRunOptions(program.command("verify"))
    .description("Reads the whole image and checks every checksum and the streams' structure.")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, flags: RunFlags) => {
      const report = await runSession(output, flags, async (session) => {
        const { verify } = await import("../../control/verify.ts");
        return verify(runOptions(image, flags, session));
      });
      output.completed(completedEvent(report), verifiedSentence(report));
    });
}

function completedEvent(report: VerifyReport): VerifyCompletedEvent {
  const { bytes, elapsedMs, path, checked, blocks, resumed } = report;
  const facts = { bytes, elapsedMs, image: { path }, checked, blocks };
  return { event: "completed", ...facts, ...(resumed === undefined ? {} : { resumed }) };
}

function verifiedSentence({ bytes, elapsedMs, path, checked, blocks, resumed }: VerifyReport): string {
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  const found = checked === "structure only" ? "whole, as far as that tells," : "intact";
  const ranOn = resumed === undefined ? "" : ` An instant restore let its VM run at ${resumed.at}.`;
  return `Verified ${path}: ${formatBytes(bytes)} in ${blocks} blocks ${found} after ${formatDuration(elapsedMs)} (${rate}); checked: ${checked}.${ranOn}`;
}
