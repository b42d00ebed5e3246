import { createHash } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MultifdError } from "../../errors.ts";
import type { Settings } from "../settings.ts";
import { targetName, type VmTarget } from "../target.ts";

/** What becomes of the VM once its image is safe. */
export type Then = "quit" | "pause" | "resume";

/**
 * What somebody else has to know to put a VM right when the process that was working on it is gone: the guardian, or a
 * person with `recover`.
 */
export interface Journal {
  readonly version: 1;
  readonly target: VmTarget;
  /** The process that wrote it. */
  readonly pid: number;
  /** QEMU's process; null where it is not known. */
  readonly qemuPid: number | null;
  /** The VM ran before. */
  readonly running: boolean;
  /** Migration settings as they were before. */
  readonly settings: Settings;
  /**
   * saving: nothing is safe yet, the VM is to run on as before. published: the image is safe, and what was to
   * follow is to be done.
   */
  readonly phase: "saving" | "published";
  readonly afterwards: Then;
  /** Absolute path, or fd:N. */
  readonly image: string;
  /** Where the image lies in its file. */
  readonly offset: number;
  /** When the save began, in milliseconds since 1970: an image that is newer is its image. */
  readonly startedMs: number;
  /** Overlays that the VM's disks got, or were to get: where they did, what the VM writes is in them. */
  readonly overlays: readonly { readonly overlay: string }[];
  /** Where the migration's socket is: to be removed. */
  readonly directory: string;
}

const VERSION = 1;

/** Where this VM's journal lies: in a directory of this user's that does not outlive the machine's uptime. */
export function journalPath(target: VmTarget): string {
  const name = createHash("sha256").update(targetName(target)).digest("hex").slice(0, 16);
  return join(stateDirectory(), `${name}.json`);
}

/** Replaces the journal as a whole, so that nobody reads half of one. */
export function writeJournal(path: string, journal: Journal): void {
  const unfinished = `${path}.${process.pid}`;
  writeFileSync(unfinished, JSON.stringify(journal), { mode: 0o600 });
  renameSync(unfinished, path);
}

export function removeJournal(path: string): void {
  rmSync(path, { force: true });
}

/** null: there is none. Throws IO when it cannot be read or is none of ours. */
export function readJournal(path: string): Journal | null {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return null;
    throw new MultifdError("IO", `cannot read the journal ${path}: ${String(error)}`, { path }, error);
  }
  try {
    const journal = JSON.parse(text) as Journal;
    if (journal.version === VERSION) return journal;
  } catch {
    // told below
  }
  throw new MultifdError(
    "IO",
    `${path} is no journal of this version: remove it, and look after the VM by hand`,
    {
      path,
    },
  );
}

/** Private to this user: what it says is done to VMs. */
function stateDirectory(): string {
  const uid = process.getuid?.() ?? 0;
  const runtime = process.env.XDG_RUNTIME_DIR || (uid === 0 ? "/run" : undefined);
  const directory =
    runtime === undefined ? join(tmpdir(), `multifd-helper-${uid}`) : join(runtime, "multifd-helper");
  const { uid: owner, mode } = madeDirectory(directory);
  if (owner === uid && (mode & 0o077) === 0) return directory;
  throw new MultifdError(
    "IO",
    `${directory} must belong to this user alone (mode 0700): others could say there what becomes of VMs`,
    {
      path: directory,
    },
  );
}

/** Not with what lies above it: where that cannot be made, Node 20's recursive mkdirSync may never come back (/proc). */
function madeDirectory(path: string): Stats {
  try {
    if (!existsSync(path)) mkdirSync(path, { mode: 0o700 });
    return statSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EEXIST") return statSync(path);
    const { message } = error as Error;
    const text = `cannot make the directory ${path} for the word of what is done to VMs (${message}): set XDG_RUNTIME_DIR to a directory of yours`;
    throw new MultifdError("IO", text, { path }, error);
  }
}
