import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError } from "../file-io.ts";
import { closeOnExec, duplicate, openFlags, tryLock } from "../libc.ts";
import { type OpenedFile, openDirect, probeRead } from "./direct-io.ts";
import { flushDirectoryOf } from "./durability.ts";
import { deviceBytes, diskBytes, inheritedFd, kindOfStat } from "./file-kind.ts";
import { noTarget } from "./no-target.ts";
import type { Target, TargetRequest } from "./target.ts";

const { O_RDWR, O_WRONLY, O_ACCMODE, O_RDONLY, O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW } = {
  O_ACCMODE: 3,
  ...fs.constants,
};

const STDOUT = 1;
const STDERR = 2;

/** A path that is written where it is: a block device, or a regular file that holds a manager's header first. */
export async function openInPlace(
  file: string,
  base: number,
  kind: "missing" | "regular" | "block",
  request: TargetRequest,
): Promise<Target> {
  const create = kind === "missing";
  // Of a block device it asks that nobody has it mounted or uses it in another device (open(2)).
  const exclusive = kind === "block" ? O_EXCL : 0;
  if (create) fs.closeSync(createFile(file));
  try {
    const opened = await openDirect(
      request.directIo,
      file,
      (extra) => openExisting(file, O_RDWR | O_NOFOLLOW | exclusive | extra),
      (fd) => probeRead(fd, base),
      request.onNote,
    );
    return inPlace(opened, base, file, file, create ? file : null);
  } catch (error) {
    const typed = ioError(error, `opening ${file}`);
    // Another save may have found and locked the file since: then it is that one's.
    if (create && typed.code !== "TARGET_BUSY") fs.rmSync(file, { force: true });
    throw typed;
  }
}

/** A descriptor that the manager opened for us. It keeps its own; ours is a second opening of the same file. */
export async function openInherited(number: number, base: number, request: TargetRequest): Promise<Target> {
  const name = request.image;
  const flags = inheritedFlags(number, name);
  if ((flags & O_ACCMODE) === O_RDONLY) {
    throw new MultifdError(
      "TARGET_REFUSED",
      `${name} is open for reading only: open it for reading and writing`,
    );
  }
  if ((flags & O_APPEND) !== 0) {
    throw new MultifdError(
      "TARGET_REFUSED",
      `${name} is open with O_APPEND, which would put every write at the end: open it without`,
    );
  }
  kindOfStat(fs.fstatSync(number), name);
  try {
    const opened = await openDirect(
      request.directIo,
      name,
      (extra) => reopen(number, flags & O_ACCMODE, extra),
      (fd) => ((flags & O_ACCMODE) === O_WRONLY ? Promise.resolve() : probeRead(fd, base)),
      request.onNote,
    );
    return inPlace(opened, base, name, null, null);
  } catch (error) {
    throw ioError(error, `using ${name}`);
  }
}

function inPlace(
  { fd, directIo }: OpenedFile,
  base: number,
  name: string,
  path: string | null,
  created: string | null,
): Target {
  const stat = fs.fstatSync(fd);
  const kind = kindOfStat(stat, name);
  if (isTold(stat)) {
    fs.closeSync(fd);
    const text = `${name} is where stdout or stderr goes, whose text would be written over the image: give another one`;
    throw new MultifdError("TARGET_REFUSED", text);
  }
  // Of a path: a save that created the file and failed has just removed it, and its lock with it.
  if (!tryLock(fd) || (removed(fd) && inheritedFd(name) === null)) {
    fs.closeSync(fd);
    throw new MultifdError(
      "TARGET_BUSY",
      `another save writes ${name}, or a restore reads it: wait for it, or choose another target`,
    );
  }
  return {
    fd,
    path,
    base,
    directIo,
    sparse: kind === "regular",
    ownsFile: created !== null,
    capacity: kind === "block" ? deviceBytes(stat.rdev) - base : null,
    heldBytes: Math.max(0, diskBytes(stat) - base),
    earlierBytes: 0,
    giveUpEarlier: () => undefined,
    async publish(): Promise<void> {
      if (created !== null) fs.fsyncSync(fd);
      fs.closeSync(fd);
      if (created !== null) flushDirectoryOf(created);
    },
    async discard(): Promise<void> {
      // While it is still locked: afterwards it may be another save's.
      if (created !== null) fs.rmSync(created, { force: true });
      fs.closeSync(fd);
    },
  };
}

function removed(fd: number): boolean {
  return fs.fstatSync(fd).nlink === 0;
}

/** Whether what this process says goes to this file, too. */
function isTold({ dev, ino }: fs.Stats): boolean {
  return [STDOUT, STDERR].some((told) => {
    const where = fs.fstatSync(told);
    return where.dev === dev && where.ino === ino;
  });
}

function createFile(file: string): number {
  try {
    const fd = fs.openSync(file, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    fs.fchmodSync(fd, 0o600);
    return fd;
  } catch (error) {
    throw noTarget(error, file) ?? ioError(error, `creating ${file}`);
  }
}

function openExisting(file: string, flags: number): number {
  try {
    return fs.openSync(file, flags);
  } catch (error) {
    if (!hasCode(error, "EBUSY")) throw error;
    const text = `${file} is in use, by a mounted file system or another device: choose another target`;
    throw new MultifdError("TARGET_BUSY", text, { path: file }, error);
  }
}

function inheritedFlags(number: number, name: string): number {
  try {
    closeOnExec(number);
    return openFlags(number);
  } catch (error) {
    const text = `${name} is not an open descriptor: the manager must pass it when it starts this process`;
    throw new MultifdError("TARGET_REFUSED", text, {}, error);
  }
}

/**
 * O_DIRECT is a property of the open file that the manager shares with us: so it needs an opening of its own.
 * Where the file may not be opened again (the manager had more rights), the manager's is used as it is.
 */
function reopen(number: number, mode: number, extra: number): number {
  try {
    return fs.openSync(`/proc/self/fd/${number}`, mode | extra);
  } catch (error) {
    if (extra !== 0 || !hasCode(error, "EACCES", "EPERM")) throw error;
    return duplicate(number);
  }
}
