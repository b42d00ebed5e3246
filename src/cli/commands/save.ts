import type { Command } from "commander";
import type { CompletedEvent } from "../../control/events.ts";
import type { SaveOptions } from "../../control/options.ts";
import type { VmTarget } from "../../vm/target.ts";
import { MAX_CHANNELS, parseChannels } from "../expect.ts";
import { formatBytes, formatChannels, formatDuration, formatRate } from "../format.ts";
import { Hold } from "../hold.ts";
import { collectMeta, type Pair } from "../meta.ts";
import { addTransferOptions, repeatable, type TransferFlags, transferOptions, valued } from "../options.ts";
import type { Output } from "../output.ts";
import {
  addQemuSaveOptions,
  type QemuSaveFlags,
  qemuFlags,
  qemuSaveOptions,
  refuseTogether,
  vmTarget,
} from "../qemu-options.ts";
import { runSession, type Session } from "../session.ts";
import { parseChoice, parseInteger, parsePair, parsePositiveSize, usage } from "../values.ts";

interface SaveFlags extends TransferFlags, QemuSaveFlags {
  readonly listen?: string;
  readonly allowRemote?: true;
  readonly allowUid?: readonly number[];
  readonly discardBacklog?: true;
  readonly replace?: true;
  readonly channels?: number;
  readonly hold?: true;
  readonly checksum?: "crc32" | "none";
  readonly expectBytes?: number;
  readonly maxBytes?: number;
  readonly meta?: readonly Pair[];
  readonly metaFile?: readonly Pair[];
}

/** The kernel keeps 2^32 - 1 for "no user". */
const parseUid = parseInteger(0, 2 ** 32 - 2);

const EXAMPLE = `
Example:
  multifd-helper save vm.mfd --qmp /run/vm/qmp.sock
  stops the VM, saves it over 4 channels, and ends it when the image is on disk

  multifd-helper save vm.mfd --listen unix:/run/vm/save.sock --channels 4
  then, in QEMU: migrate to unix:/run/vm/save.sock with multifd on and multifd-channels 4`;

export function addSaveCommand(program: Command, output: Output): void {
  const command = program
    .command("save")
    .description(
      "Saves a VM into an image: drives QEMU over QMP (--qmp), or waits for one that migrates (--listen).",
    )
    .option("--listen <address>", "wait for QEMU at unix:PATH, tcp:HOST:PORT, or fd:N (a listening socket)")
    .option("--allow-remote", "accept a tcp address that is not loopback")
    .addOption(repeatable("--allow-uid <uid>", "let this user's QEMU connect, too (repeatable)", parseUid))
    .option("--discard-backlog", "close what waits on fd:N already: a migration that failed left it")
    .option("--replace", "give up an earlier image first: less disk is needed, and a failure leaves none")
    .addOption(
      valued(
        "--channels <n>",
        `multifd channels, 0 to ${MAX_CHANNELS} (default: any complete set; with --qmp: 4)`,
        parseChannels,
      ),
    )
    .option("--hold", "seal only after the line commit on stdin; abort or end of input discards")
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
  addQemuSaveOptions(command);
  addTransferOptions(command)
    .addHelpText("after", EXAMPLE)
    .action(async (image: string, flags: SaveFlags) => {
      const target = vmTarget(flags);
      if (target === null) checkDataPlaneFlags(flags);
      else checkQemuFlags(flags);
      const completed = await runSession(output, flags, (session) =>
        target === null ? runSave(image, flags, session) : runVmSave(target, image, flags, session),
      );
      output.completed(
        completed,
        savedSentence(completed, target === null ? undefined : (flags.then ?? "quit")),
      );
    });
}

/** What only makes sense when somebody else drives QEMU. */
function checkQemuFlags(flags: SaveFlags): void {
  const { listen, allowRemote, allowUid, discardBacklog, hold } = flags;
  const foreign = { listen, allowRemote, allowUid, discardBacklog, hold };
  refuseTogether("--qmp", foreign);
}

function checkDataPlaneFlags(flags: SaveFlags): void {
  if (flags.listen === undefined)
    throw usage("say which VM: --qmp PATH or --virsh DOMAIN, or --listen ADDRESS to wait for one");
  refuseTogether("--listen", qemuFlags(flags));
}

async function runVmSave(
  vm: VmTarget,
  image: string,
  flags: SaveFlags,
  session: Session,
): Promise<CompletedEvent> {
  const meta = await collectMeta(flags.meta, flags.metaFile);
  const { saveVm } = await import("../../index.ts");
  return await saveVm({
    ...transferOptions(image, flags, session),
    ...imageOptions(flags),
    ...qemuSaveOptions(flags),
    vm,
    meta,
  });
}

/** What both ways of saving have in common. */
function imageOptions(
  flags: SaveFlags,
): Pick<SaveOptions, "replace" | "channels" | "checksum" | "expectBytes" | "maxBytes"> {
  const { replace, channels, checksum, expectBytes, maxBytes } = flags;
  return { replace, channels, checksum, expectBytes, maxBytes };
}

async function runSave(image: string, flags: SaveFlags, session: Session): Promise<CompletedEvent> {
  // Listening to stdin starts first, so that an abort is heard during start-up, too.
  const { cancel, log, outliveParent } = session;
  const hold = flags.hold ? new Hold(process.stdin, cancel, log, outliveParent) : undefined;
  try {
    const meta = await collectMeta(flags.meta, flags.metaFile);
    const { save } = await import("../../index.ts");
    return await save({
      ...transferOptions(image, flags, session),
      ...imageOptions(flags),
      listen: flags.listen as string,
      allowRemote: flags.allowRemote,
      allowUids: flags.allowUid,
      discardBacklog: flags.discardBacklog,
      meta,
      confirm: hold?.confirm,
    });
  } finally {
    hold?.close();
  }
}

/** There is one format so far; the option exists so that scripts can already say what they mean. */
function parseFormat(text: string, what: string): "stream" {
  if (text === "mapped-ram") {
    throw usage(`${what} mapped-ram is not supported by this version yet; leave it out or say stream`);
  }
  return parseChoice(["stream"] as const)(text, what);
}

const FATES = { quit: "the VM has ended", pause: "the VM stays paused", resume: "the VM runs on" } as const;

function savedSentence({ bytes, elapsedMs, image }: CompletedEvent, then?: keyof typeof FATES): string {
  const rate = formatRate((bytes * 1000) / Math.max(elapsedMs, 1));
  const channels = formatChannels(image.multifdChannels);
  return `Saved ${formatBytes(bytes)} over ${channels} to ${image.path} in ${formatDuration(elapsedMs)} (${rate}), sealed${then === undefined ? "" : `; ${FATES[then]}`}.`;
}
