import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { MultifdError } from "../../errors.ts";
import type { CompletedEvent, ConvertOptions } from "../../index.ts";
import { MAX_CHANNELS, parseChannels } from "../expect.ts";
import { formatBytes, formatDuration, formatRate } from "../format.ts";
import { addNewImageOptions, type NewImageFlags, newImageOptions } from "../new-image-options.ts";
import { addRunOptions, type RunFlags, runOptions, valued } from "../options.ts";
import type { Output } from "../output.ts";
import { runSession, type Session } from "../session.ts";
import { errnoOf, parseChoice, parseSize, usage } from "../values.ts";

interface ConvertFlags extends RunFlags, NewImageFlags {
  readonly format?: ConvertOptions["format"];
  readonly channels?: number;
  readonly xml?: string;
  readonly running?: true;
  readonly paused?: true;
  readonly outputOffset?: number;
  readonly scratch?: string;
  readonly force?: true;
}

const EXAMPLE = `
Example:
  multifd-helper convert vm.mfd vm.mr --format mapped-ram
  an image that QEMU 9.0 and later loads by itself, and that restores with any number of channels

  multifd-helper convert vm.mr vm.mfd --format stream --channels 8
  multifd-helper convert vm.mfd web.save --format libvirt --xml web.xml && virsh restore web.save

Takes images of multifd-helper, of libvirt (raw and sparse) and of QEMU alone. The output is published when all of it is on
disk, as a save's is. A stream that gets another number of channels is copied to mapped-ram on the way (--scratch).`;

export function addConvertCommand(program: Command, output: Output): void {
  const command = program
    .command("convert")
    .description("Makes an image of another format out of one of any kind.")
    .addOption(
      valued(
        "--format <format>",
        "stream, mapped-ram, or libvirt, which virsh restore takes",
        parseChoice(["stream", "mapped-ram", "libvirt"] as const),
      ).makeOptionMandatory(),
    )
    .addOption(
      valued(
        "--channels <n>",
        `of a stream, 0 to ${MAX_CHANNELS} (default: those of the source, or 4)`,
        parseChannels,
      ),
    )
    .option("--xml <path>", "the domain's XML, for libvirt (default: the source's, if libvirt ran it)")
    .option("--running", "for libvirt: the domain runs when it is restored (default: if it did)")
    .option("--paused", "for libvirt: it does not")
    .addOption(valued("--output-offset <bytes>", "as --offset, of the output (default: 0)", parseSize))
    .option("--scratch <dir>", "where a copy may lie for a while (default: the output's directory)");
  addNewImageOptions(command).option(
    "--force",
    "go on where room, the VM or the stream's end are not as they should be",
  );
  addRunOptions(command)
    .argument("<output>", "path of the new image, or fd:N for an inherited descriptor")
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, made: string, flags: ConvertFlags) => {
      const completed = await runSession(output, flags, async (session) => {
        const { convert } = await import("../../control/convert/convert.ts");
        return await convert(await convertOptions(image, made, flags, session));
      });
      output.completed(completed, sentence(image, completed));
    });
}

async function convertOptions(
  image: string,
  output: string,
  flags: ConvertFlags,
  session: Session,
): Promise<ConvertOptions> {
  const { format, channels, xml, running, paused, outputOffset, scratch, force } = flags;
  if (running && paused) throw usage("--running and --paused contradict each other");
  return {
    ...runOptions(image, flags, session),
    ...(await newImageOptions(flags)),
    ...{ output, format: format as ConvertOptions["format"], channels, outputOffset, scratch, force },
    xml: xml === undefined ? undefined : await readXml(xml),
    running: running ?? (paused ? false : undefined),
  };
}

async function readXml(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const text = `the domain's XML ${path} cannot be read: ${(error as Error).message}`;
    throw new MultifdError("IO", text, { errno: errnoOf(error) }, error);
  }
}

function sentence(from: string, { bytes, elapsedMs, image }: CompletedEvent): string {
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  const what = image.format === "libvirt" ? "an image of libvirt" : `format ${image.format}, sealed`;
  return `Converted ${from} to ${image.path}: ${formatBytes(bytes)} in ${formatDuration(elapsedMs)} (${rate}); ${what}.`;
}
