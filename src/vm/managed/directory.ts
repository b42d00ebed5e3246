import fs from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError } from "../../io/file-io.ts";

/** Where everything of one managed VM lies. */
export interface ManagedPlace {
  readonly name: string;
  readonly directory: string;
  /** The image that the next start restores. */
  readonly image: string;
  /** The same while its VM is let run: from then on it may have run. */
  readonly resuming: string;
  /** How the VM was started last: record.ts. */
  readonly record: string;
  /** The monitor that start gives to QEMU. */
  readonly qmp: string;
  /** Held by whoever works on this VM. */
  readonly lock: string;
}

const NAME = /^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/;
/** sockaddr_un's sun_path without its NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

/** /var/lib/multifd-helper for root, below $XDG_STATE_HOME (~/.local/state) for everybody else. */
export function defaultStateDirectory(): string {
  if (process.getuid?.() === 0) return "/var/lib/multifd-helper";
  return join(process.env.XDG_STATE_HOME || join(homedir(), ".local/state"), "multifd-helper");
}

/**
 * The state directory, made if it is not there. It has to be this user's alone: what it says is started.
 * @throws MultifdError IO
 */
export function openStateDirectory(directory: string = defaultStateDirectory()): string {
  const path = resolve(directory);
  let stat: fs.Stats;
  try {
    fs.mkdirSync(path, { recursive: true, mode: 0o700 });
    stat = fs.statSync(path);
  } catch (error) {
    throw ioError(error, `making the state directory ${path}`);
  }
  if (stat.uid === process.getuid?.() && (stat.mode & 0o077) === 0) return path;
  const text = `${path} must belong to this user alone (mode 0700): it says which programs are started as VMs, and holds their memory`;
  throw new MultifdError("IO", text, { path });
}

/** @throws MultifdError USAGE (the name), IO */
export function managedPlace(name: string, stateDirectory?: string): ManagedPlace {
  checkName(name);
  const directory = openStateDirectory(stateDirectory);
  const file = (suffix: string): string => join(directory, `${name}${suffix}`);
  return {
    name,
    directory,
    image: file(".mfd"),
    resuming: file(".mfd.resuming"),
    record: file(".vm.json"),
    qmp: file(".qmp"),
    // No name begins with a dot, so that this is nobody's image.
    lock: join(directory, `.${name}.lock`),
  };
}

/** Names become file names. Throws USAGE. */
function checkName(name: string): void {
  if (NAME.test(name)) return;
  const text = `the name of a VM has 1 to 64 letters, digits, dots, dashes and underscores, and no dot first; not ${JSON.stringify(name)}`;
  throw new MultifdError("USAGE", text);
}

/** QEMU's argument for the monitor that stays. Throws USAGE where its path is too long for a socket. */
export function monitorArguments({ qmp }: ManagedPlace): readonly string[] {
  if (Buffer.byteLength(qmp) > MAX_SOCKET_PATH) {
    const text = `${qmp} is too long for a socket (${MAX_SOCKET_PATH} bytes): use a shorter name or --state-dir`;
    throw new MultifdError("USAGE", text, { path: qmp });
  }
  return ["-qmp", `unix:${qmp.replaceAll(",", ",,")},server=on,wait=off`];
}

export interface ManagedNames {
  /** VMs that have an image, or one that may have run. */
  readonly saved: readonly string[];
  /** VMs that are being saved, or were when that was killed. */
  readonly unfinished: readonly string[];
  /** VMs that start has started. */
  readonly recorded: readonly string[];
}

/** The VMs that a state directory knows, in order. Throws IO. */
export function managedNames(directory: string): ManagedNames {
  let files: string[];
  try {
    files = fs.readdirSync(directory);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return { saved: [], unfinished: [], recorded: [] };
    throw ioError(error, `reading the state directory ${directory}`);
  }
  return {
    saved: namesOf(files, /^(.+)\.mfd(?:\.resuming)?$/),
    unfinished: namesOf(files, /^\.(.+)\.mfd\.multifd-partial$/),
    recorded: namesOf(files, /^(.+)\.vm\.json$/),
  };
}

function namesOf(files: readonly string[], pattern: RegExp): string[] {
  const names = files.flatMap((file) => pattern.exec(file)?.[1] ?? []).filter((name) => NAME.test(name));
  return [...new Set(names)].sort();
}
