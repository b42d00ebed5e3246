import type { Command } from "commander";
import type { SaveOptions } from "../control/options.ts";
import { MAX_CHANNELS, parseChannels } from "./expect.ts";
import { collectMeta, type Pair } from "./meta.ts";
import { repeatable, valued } from "./options.ts";
import { parseChoice, parsePair, parsePositiveSize } from "./values.ts";

/** Of every command that writes an image. */
export interface NewImageFlags {
  readonly replace?: true;
  readonly checksum?: "crc32" | "none";
  readonly expectBytes?: number;
  readonly meta?: readonly Pair[];
  readonly metaFile?: readonly Pair[];
}

/** Of every command that saves a VM to one. */
export interface SavedImageFlags extends NewImageFlags {
  readonly channels?: number;
  readonly format?: "stream" | "mapped-ram";
  readonly maxBytes?: number;
}

export function addNewImageOptions(command: Command): Command {
  return command
    .option("--replace", "give up an earlier image first: less disk is needed, and a failure leaves none")
    .addOption(
      valued(
        "--checksum <method>",
        "crc32 or none (default: crc32)",
        parseChoice(["crc32", "none"] as const),
      ),
    )
    .addOption(valued("--expect-bytes <bytes>", "refuse at once where there is less room", parsePositiveSize))
    .addOption(repeatable("--meta <key=value>", "text to keep in the image (repeatable)", parsePair))
    .addOption(repeatable("--meta-file <key=path>", "file to keep in the image (repeatable)", parsePair));
}

/** @param channels how many channels there are when nothing is said */
export function addSavedImageOptions(command: Command, channels: string): Command {
  command
    .addOption(
      valued(
        "--channels <n>",
        `multifd channels, 0 to ${MAX_CHANNELS} (default: ${channels})`,
        parseChannels,
      ),
    )
    .addOption(
      valued(
        "--format <format>",
        "stream: the channels as they come; mapped-ram: QEMU's own, each page at its place (default: stream)",
        parseChoice(["stream", "mapped-ram"] as const),
      ),
    )
    .addOption(valued("--max-bytes <bytes>", "fail when the streams grow beyond it", parsePositiveSize));
  return addNewImageOptions(command);
}

export async function newImageOptions({
  replace,
  checksum,
  expectBytes,
  meta,
  metaFile,
}: NewImageFlags): Promise<Pick<SaveOptions, "replace" | "checksum" | "expectBytes" | "meta">> {
  return { replace, checksum, expectBytes, meta: await collectMeta(meta, metaFile) };
}

export async function savedImageOptions({
  channels,
  format,
  maxBytes,
  ...flags
}: SavedImageFlags): Promise<
  Pick<SaveOptions, "replace" | "channels" | "format" | "checksum" | "expectBytes" | "maxBytes" | "meta">
> {
  return { ...(await newImageOptions(flags)), channels, format, maxBytes };
}
