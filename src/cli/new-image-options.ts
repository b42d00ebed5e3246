import type { Command } from "commander";
import type { SaveOptions } from "../control/options.ts";
import { MAX_CHANNELS, parseChannels } from "./expect.ts";
import { collectMeta, type Pair } from "./meta.ts";
import { repeatable, valued } from "./options.ts";
import { parseChoice, parsePair, parsePositiveSize, usage } from "./values.ts";

/** What every command that writes an image has. */
export interface NewImageFlags {
  readonly replace?: true;
  readonly channels?: number;
  readonly checksum?: "crc32" | "none";
  readonly expectBytes?: number;
  readonly maxBytes?: number;
  readonly meta?: readonly Pair[];
  readonly metaFile?: readonly Pair[];
}

/** @param channels how many channels there are when nothing is said */
export function addNewImageOptions(command: Command, channels: string): Command {
  return command
    .option("--replace", "give up an earlier image first: less disk is needed, and a failure leaves none")
    .addOption(
      valued(
        "--channels <n>",
        `multifd channels, 0 to ${MAX_CHANNELS} (default: ${channels})`,
        parseChannels,
      ),
    )
    .addOption(valued("--format <format>", "stream (default: stream)", parseFormat))
    .addOption(
      valued(
        "--checksum <method>",
        "crc32 or none (default: crc32)",
        parseChoice(["crc32", "none"] as const),
      ),
    )
    .addOption(valued("--expect-bytes <bytes>", "refuse at once where there is less room", parsePositiveSize))
    .addOption(valued("--max-bytes <bytes>", "fail when the streams grow beyond it", parsePositiveSize))
    .addOption(repeatable("--meta <key=value>", "text to keep in the image (repeatable)", parsePair))
    .addOption(repeatable("--meta-file <key=path>", "file to keep in the image (repeatable)", parsePair));
}

export async function newImageOptions(
  flags: NewImageFlags,
): Promise<Pick<SaveOptions, "replace" | "channels" | "checksum" | "expectBytes" | "maxBytes" | "meta">> {
  const { replace, channels, checksum, expectBytes, maxBytes } = flags;
  const meta = await collectMeta(flags.meta, flags.metaFile);
  return { replace, channels, checksum, expectBytes, maxBytes, meta };
}

/** There is one format so far; the option exists so that scripts can already say what they mean. */
function parseFormat(text: string, what: string): "stream" {
  if (text === "mapped-ram") {
    throw usage(`${what} mapped-ram is not supported by this version yet; leave it out or say stream`);
  }
  return parseChoice(["stream"] as const)(text, what);
}
