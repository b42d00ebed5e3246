import type { Command } from "commander";
import type { RestoreVmOptions } from "../vm/restore/restore-vm.ts";
import type { SaveVmOptions } from "../vm/save/options.ts";
import type { VmTarget } from "../vm/target.ts";
import { parseUuid } from "./expect.ts";
import { valued } from "./options.ts";
import { parseChoice, parseInteger, parsePositiveSeconds, usage } from "./values.ts";

/** Which VM is meant. */
export interface VmFlags {
  readonly qmp?: string;
  readonly virsh?: string;
  readonly connectUri?: string;
}

/** How a VM that runs is saved. */
export interface MigrationFlags {
  readonly compression?: Compression;
  readonly live?: true;
  readonly maxDowntime?: number;
  readonly maxPasses?: number;
  readonly maxSeconds?: number;
}

/** How QEMU is driven by save. */
export interface QemuSaveFlags extends VmFlags, MigrationFlags {
  readonly engine?: "helper" | "file";
  readonly then?: "quit" | "pause" | "resume";
}

/** How QEMU is driven by restore. */
export interface QemuRestoreFlags extends VmFlags {
  readonly engine?: "helper" | "file";
  readonly running?: true;
  readonly paused?: true;
  readonly clearRam?: true;
  readonly uuid?: string;
  readonly detach?: true;
  readonly pidFile?: string;
  readonly json?: true;
}

interface Compression {
  readonly method: "none" | "zlib" | "zstd";
  readonly level?: number;
}

export function addVmOptions(command: Command): Command {
  return command
    .optionsGroup("Driving QEMU:")
    .option("--qmp <path>", "the VM's QMP monitor, a unix socket (-qmp unix:PATH,server=on,wait=off)");
}

/** For commands that do not start a QEMU that libvirt would have to know. */
export function addDomainOptions(command: Command): Command {
  return addVmOptions(command)
    .option("--virsh <domain>", "a domain that libvirt runs, instead of --qmp: its monitor, through virsh")
    .option("--connect-uri <uri>", "with --virsh: libvirt's connection URI (default: virsh's own)");
}

export function addQemuSaveOptions(command: Command): Command {
  addDomainOptions(command)
    .addOption(
      valued(
        "--then <what>",
        "what becomes of the VM when its image is on disk: quit, pause or resume (default: quit)",
        parseChoice(["quit", "pause", "resume"] as const),
      ),
    )
    .addOption(
      valued(
        "--engine <engine>",
        "helper: our data path; file: QEMU (9.0 and later) writes a mapped-ram image (default: helper)",
        parseChoice(["helper", "file"] as const),
      ),
    );
  return addMigrationOptions(
    command,
    "let the VM run while it is saved, and stop it for the last of it only",
  );
}

/** @param live what --live means */
export function addMigrationOptions(command: Command, live: string): Command {
  return command
    .addOption(
      valued(
        "--compression <method>",
        "none, zlib[:LEVEL] or zstd[:LEVEL], by QEMU (default: none)",
        parseCompression,
      ),
    )
    .option("--live", live)
    .addOption(
      valued(
        "--max-downtime <seconds>",
        "with --live: how long the VM may stand still (default: QEMU's 0.3)",
        parsePositiveSeconds,
      ),
    )
    .addOption(
      valued(
        "--max-passes <n>",
        "with --live: stop the VM after so many passes over its RAM",
        parseInteger(1, 1_000_000),
      ),
    )
    .addOption(
      valued("--max-seconds <seconds>", "with --live: stop the VM after so long", parsePositiveSeconds),
    );
}

export function addQemuRestoreOptions(command: Command): Command {
  return addLaunchOptions(addVmOptions(command), "with --: ").addOption(
    valued(
      "--engine <engine>",
      "for a mapped-ram image; helper: our data path; file: QEMU (9.0 and later) reads it (default: helper)",
      parseChoice(["helper", "file"] as const),
    ),
  );
}

/**
 * How a VM is restored, and what becomes of the QEMU that was started for it.
 * @param when when options about that QEMU make sense
 */
export function addLaunchOptions(command: Command, when: string): Command {
  return command
    .option("--running", "let the VM run afterwards (default: if it ran when it was saved)")
    .option("--paused", "leave the VM paused afterwards")
    .addOption(valued("--uuid <uuid>", "the destination is a clone, with this UUID", parseUuid))
    .option("--clear-ram", "empty a RAM file of the destination that holds data, instead of refusing it")
    .option("--detach", `${when}end when the VM is restored, and let QEMU live on`)
    .option("--pid-file <path>", "with --detach: write QEMU's process number there");
}

/** Those that need a QEMU that is driven. */
export function qemuRestoreFlags(flags: QemuRestoreFlags): object {
  const { running, paused, clearRam, detach, pidFile, engine } = flags;
  return { running, paused, clearRam, detach, pidFile, engine };
}

export function qemuRestoreOptions({
  running,
  paused,
  clearRam,
  uuid,
  engine,
}: QemuRestoreFlags): Pick<RestoreVmOptions, "run" | "clearRam" | "uuid" | "engine"> {
  if (running && paused) throw usage("--running and --paused contradict each other");
  return { uuid, clearRam, engine, run: running ? true : paused ? false : undefined };
}

/** null: no VM was named. */
export function vmTarget({ qmp, virsh, connectUri }: VmFlags): VmTarget | null {
  if (virsh === undefined) refuseWithout("--virsh", { connectUri });
  else if (qmp !== undefined) throw usage("--qmp and --virsh name two VMs: say one");
  else return { virsh, uri: connectUri };
  return qmp === undefined ? null : { qmp };
}

export function qemuFlags({
  engine,
  compression,
  live,
  maxDowntime,
  maxPasses,
  maxSeconds,
  then,
}: QemuSaveFlags): object {
  return { engine, compression, live, maxDowntime, maxPasses, maxSeconds, then };
}

export function qemuSaveOptions(
  flags: QemuSaveFlags,
): Pick<SaveVmOptions, "afterwards" | "engine" | "compression" | "compressionLevel" | "live"> {
  const { then: afterwards, engine } = flags;
  return { afterwards, engine, ...migrationOptions(flags) };
}

export function migrationOptions(
  flags: MigrationFlags,
): Pick<SaveVmOptions, "compression" | "compressionLevel" | "live"> {
  const { compression, live, maxDowntime, maxPasses, maxSeconds } = flags;
  if (!live) refuseWithout("--live", { maxDowntime, maxPasses, maxSeconds });
  return {
    compression: compression?.method,
    compressionLevel: compression?.level,
    live: live ? { maxDowntimeMs: maxDowntime, maxPasses, maxMs: maxSeconds } : undefined,
  };
}

/** @throws MultifdError USAGE when one of `flags` was given */
export function refuseTogether(option: string, flags: object): void {
  const [given] = names(flags);
  if (given !== undefined) throw usage(`${given} makes no sense together with ${option}`);
}

export function refuseWithout(option: string, flags: object): void {
  const [given] = names(flags);
  if (given !== undefined) throw usage(`${given} makes no sense without ${option}`);
}

/** The options behind commander's names: maxDowntime is --max-downtime. */
function names(flags: object): string[] {
  return Object.entries(flags)
    .filter(([, value]) => value !== undefined)
    .map(([name]) => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`);
}

const HIGHEST_LEVEL = { zlib: 9, zstd: 20 } as const;

/** "zstd", "zstd:3": levels are those of QEMU's multifd-zlib-level and multifd-zstd-level. */
function parseCompression(text: string, what: string): Compression {
  const [word = "", level, ...rest] = text.split(":");
  const method = parseChoice(["none", "zlib", "zstd"] as const)(word, what);
  if (level === undefined) return { method };
  if (method === "none" || rest.length > 0)
    throw usage(`${what} wants none, zlib[:LEVEL] or zstd[:LEVEL], not ${JSON.stringify(text)}`);
  return { method, level: parseInteger(0, HIGHEST_LEVEL[method])(level, `${what} ${method}`) };
}
