import { type Command, Option } from "commander";
import type { DirectIo, RunOptions, TransferOptions } from "../control/options.ts";
import type { LogFlags } from "./logging.ts";
import type { Session } from "./session.ts";
import {
  LOG_LEVELS,
  parseChoice,
  parseInteger,
  parsePositiveSeconds,
  parsePositiveSize,
  parseSeconds,
  parseSize,
} from "./values.ts";

/*
 * Option groups: each `add…Options` declares on a command what its `…Flags` describe, and `…Options`
 * turns them into the library's options.
 */

export interface ImageFlags {
  readonly offset?: number;
}

export interface RunFlags extends ImageFlags, LogFlags {
  readonly directIo?: DirectIo;
  readonly workers?: number;
  readonly dieWithParent?: true;
}

export interface TransferFlags extends RunFlags {
  readonly connectTimeout?: number;
  readonly stallTimeout?: number;
  readonly rate?: number;
  readonly force?: true;
}

const MAX_WORKERS = 256;

/** An option with a value; `parse` gets the text and the option's name for its message. */
export function valued<T>(
  flags: string,
  description: string,
  parse: (text: string, what: string) => T,
): Option {
  const option = new Option(flags, description);
  return option.argParser((text) => parse(text, option.long ?? flags));
}

/** An option that may be given several times and collects its values in order. */
export function repeatable<T>(
  flags: string,
  description: string,
  parse: (text: string, what: string) => T,
): Option {
  const option = new Option(flags, description);
  return option.argParser((text, previous: readonly T[] = []) => [
    ...previous,
    parse(text, option.long ?? flags),
  ]);
}

/** What every command that opens an image has. */
export function addImageOptions(command: Command): Command {
  return command
    .optionsGroup("Image and output:")
    .argument("<image>", "path of the image, or fd:N for an inherited descriptor")
    .addOption(
      valued("--offset <bytes>", "what lies before belongs to somebody else (default: 0)", parseSize),
    )
    .option("--json", "write JSON to stdout and nothing else");
}

/** What save, restore and verify have in common. */
export function addRunOptions(command: Command): Command {
  return addProcessOptions(addImageOptions(command));
}

function addProcessOptions(command: Command): Command {
  return command
    .addOption(
      valued(
        "--direct-io <mode>",
        "auto: O_DIRECT where possible; on: or refuse; off (default: auto)",
        parseChoice(["auto", "on", "off"] as const),
      ),
    )
    .addOption(
      valued(
        "--workers <n>",
        "worker threads (default: one per channel, at most one per core)",
        parseInteger(1, MAX_WORKERS),
      ),
    )
    .option("--die-with-parent", "cancel, and clean up, when the process that started this one ends")
    .addOption(
      valued("--log-level <level>", `${LOG_LEVELS.join(", ")} (default: warn)`, parseChoice(LOG_LEVELS)),
    )
    .option("--log-file <path>", "append the log to this file instead of stderr");
}

/** What save and restore have in common. */
export function addTransferOptions(command: Command): Command {
  return addRunOptions(addPaceOptions(command));
}

/** The same for a command that finds the image by the name of its VM. */
export function addManagedTransferOptions(command: Command): Command {
  addPaceOptions(command)
    .optionsGroup("Image and output:")
    .option("--json", "write JSON to stdout and nothing else");
  return addProcessOptions(command);
}

function addPaceOptions(command: Command): Command {
  return command
    .optionsGroup("Transfer:")
    .addOption(
      valued(
        "--connect-timeout <seconds>",
        "until the full set of channels is connected (default: 60)",
        parsePositiveSeconds,
      ),
    )
    .addOption(
      valued(
        "--stall-timeout <seconds>",
        "fail when no channel moves a byte for so long; 0: wait for ever (default: 0)",
        parseSeconds,
      ),
    )
    .addOption(
      valued("--rate <bytes/s>", "limit for all channels together (default: unlimited)", parsePositiveSize),
    )
    .option("--force", "go on where room, VM, disks or RAM are not as they should be");
}

/** Of commands that restore. */
export function verifyOption(): Option {
  return valued(
    "--verify <when>",
    "first: the whole image before connecting; blocks: each before it is sent (default: blocks)",
    parseChoice(["first", "blocks"] as const),
  );
}

export function runOptions(image: string, flags: RunFlags, session: Session): RunOptions {
  const { offset, directIo, workers } = flags;
  const { signal, onEvent, log } = session;
  return { image, offset, directIo, workers, signal, onEvent, log };
}

export function transferOptions(image: string, flags: TransferFlags, session: Session): TransferOptions {
  const { connectTimeout, stallTimeout, rate, force } = flags;
  return {
    ...runOptions(image, flags, session),
    connectTimeoutMs: connectTimeout,
    stallTimeoutMs: stallTimeout,
    rate,
    force,
  };
}

/** Those of addManagedTransferOptions. */
export function managedTransferOptions(
  flags: TransferFlags,
  session: Session,
): Omit<TransferOptions, "image" | "offset"> {
  const { image: _image, offset: _offset, ...options } = transferOptions("", flags, session);
  return options;
}
