import { execFile } from "node:child_process";
import { readdir, realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";
import { MultifdError } from "../errors.ts";

/** A QEMU system emulator that starts on this machine. */
export interface QemuBinary {
  readonly path: string;
  /** As it says itself, without the packager's part: "7.2.22", "10.0.2". */
  readonly version: string;
  readonly major: number;
  readonly minor: number;
}

const NAME = "qemu-system-x86_64";
const HOW_TO_GET_ONE = `install ${NAME} (7.2 or later), run .ci/setup, or name one with --qemu`;

/**
 * Every QEMU that can be started: PATH, the place where RHEL hides its own, and what .ci/setup unpacked.
 * Oldest first, each once. With `explicit`, that one and no other.
 * Rejects with QEMU_MISSING if `explicit` cannot be started; finding none is an empty list.
 */
export async function findQemus(explicit?: string): Promise<QemuBinary[]> {
  if (explicit !== undefined) return [await examine(resolve(explicit))];

  const found = new Map<string, QemuBinary>();
  for (const path of await candidates()) {
    const target = await realpath(path).catch(() => undefined);
    if (target === undefined || found.has(target)) continue;
    const binary = await examine(path).catch(() => undefined);
    if (binary !== undefined) found.set(target, binary);
  }
  return [...found.values()].sort((a, b) => a.major - b.major || a.minor - b.minor);
}

/** The newest QEMU here, or the one at `explicit`. Rejects with QEMU_MISSING when there is none. */
export async function chooseQemu(explicit?: string): Promise<QemuBinary> {
  const newest = (await findQemus(explicit)).at(-1);
  if (newest === undefined) throw new MultifdError("QEMU_MISSING", `found no QEMU; ${HOW_TO_GET_ONE}`);
  return newest;
}

async function candidates(): Promise<string[]> {
  const inPath = (process.env.PATH ?? "").split(delimiter).filter((directory) => directory !== "");
  const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "multifd-helper");
  const unpacked = await readdir(cache).catch(() => []);
  return [
    ...inPath.map((directory) => join(directory, NAME)),
    "/usr/libexec/qemu-kvm",
    ...unpacked.filter((name) => name.startsWith("qemu-")).map((name) => join(cache, name, NAME)),
  ];
}

async function examine(path: string): Promise<QemuBinary> {
  const { stdout } = await promisify(execFile)(path, ["--version"], { timeout: 10_000 }).catch((error) => {
    const reason = error instanceof Error ? error.message : String(error);
    const message = `cannot start QEMU at ${path} (${reason.trim()}); ${HOW_TO_GET_ONE}`;
    throw new MultifdError("QEMU_MISSING", message, { path }, error);
  });
  const [, version, major, minor] = /version ((\d+)\.(\d+)\.\d+)/.exec(stdout) ?? [];
  if (version === undefined) {
    throw new MultifdError("QEMU_MISSING", `${path} does not say that it is a QEMU; ${HOW_TO_GET_ONE}`, {
      path,
    });
  }
  return { path, version, major: Number(major), minor: Number(minor) };
}
