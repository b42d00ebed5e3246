import fs from "node:fs";
import path from "node:path";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError, writeAligned } from "../file-io.ts";
import { tryLock } from "../libc.ts";
import { openDirect } from "./direct-io.ts";
import { flushDirectoryOf } from "./durability.ts";
import { diskBytes } from "./file-kind.ts";
import { refuseInUse } from "./in-use.ts";
import { noTarget } from "./no-target.ts";
import type { Target, TargetRequest } from "./target.ts";

const { O_RDWR, O_CREAT, O_EXCL, O_NOFOLLOW } = fs.constants;
const OWNER_ONLY = 0o600;

/** The name under which an image is written until it is sealed. One per image, so that a leftover is found again. */
export function partialName(file: string): string {
  return path.join(path.dirname(file), `.${path.basename(file)}.multifd-partial`);
}

/**
 * A regular file that is written under a temporary name beside it and renamed over the old one at the end:
 * an earlier image survives whatever goes wrong.
 */
export async function openReplacement(file: string, request: TargetRequest): Promise<Target> {
  refuseInUse(file);
  const partial = partialName(file);
  const lock = takePartial(partial, file);
  try {
    const opened = await openDirect(
      request.directIo,
      file,
      (extra) => openFile(partial, O_RDWR | O_NOFOLLOW | extra),
      probeWrite,
      request.onNote,
    );
    return new Replacement(file, partial, lock, opened.fd, opened.directIo);
  } catch (error) {
    fs.rmSync(partial, { force: true });
    fs.closeSync(lock);
    throw ioError(error, `opening ${file}`);
  }
}

class Replacement implements Target {
  readonly base = 0;
  readonly sparse = true;
  readonly ownsFile = true;
  readonly capacity = null;
  readonly heldBytes = 0;
  readonly fd: number;
  readonly directIo: boolean;
  readonly #file: string;
  readonly #partial: string;
  readonly #lock: number;

  constructor(file: string, partial: string, lock: number, fd: number, directIo: boolean) {
    this.#file = file;
    this.#partial = partial;
    this.#lock = lock;
    this.fd = fd;
    this.directIo = directIo;
  }

  get path(): string {
    return this.#partial;
  }

  get earlierBytes(): number {
    const earlier = fs.lstatSync(this.#file, { throwIfNoEntry: false });
    // Another name of it would keep its blocks.
    return earlier?.nlink === 1 ? diskBytes(earlier) : 0;
  }

  giveUpEarlier(): void {
    refuseInUse(this.#file);
    try {
      fs.rmSync(this.#file, { force: true });
    } catch (error) {
      throw ioError(error, `removing the earlier image ${this.#file}`);
    }
  }

  async publish(): Promise<void> {
    try {
      // Somebody may have begun to depend on it since.
      refuseInUse(this.#file);
      fs.renameSync(this.#partial, this.#file);
      flushDirectoryOf(this.#file);
    } catch (error) {
      // Gone already if only the directory could not be flushed: then the new image stands at its name.
      fs.rmSync(this.#partial, { force: true });
      throw ioError(error, `renaming the finished image to ${this.#file}`);
    } finally {
      this.#close();
    }
  }

  async discard(): Promise<void> {
    fs.rmSync(this.#partial, { force: true });
    this.#close();
  }

  #close(): void {
    fs.closeSync(this.fd);
    fs.closeSync(this.#lock);
  }
}

/**
 * Creates the temporary file and locks it. A leftover of a helper that was killed has no lock any more and
 * is removed; one with a lock belongs to a save that runs. Only who has locked the file that stands at the
 * name may remove it: of two saves that start at once, neither takes away what the other has just created.
 * @returns the descriptor that holds the lock
 */
function takePartial(partial: string, file: string): number {
  removeLeftover(partial, file);
  const fd = createFile(partial);
  fs.fchmodSync(fd, OWNER_ONLY);
  if (!tryLock(fd) || !isAt(fd, partial)) {
    fs.closeSync(fd);
    throw busy(file);
  }
  return fd;
}

function createFile(partial: string): number {
  try {
    return openFile(partial, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW);
  } catch (error) {
    throw ioError(error, `creating ${partial}`);
  }
}

/** Removes what a killed save left beside an image; one that is at work on it is left alone. */
export function removePartial(file: string): void {
  try {
    removeLeftover(partialName(file), file);
  } catch (error) {
    if (!(error instanceof MultifdError)) throw error;
  }
}

function removeLeftover(partial: string, file: string): void {
  let fd: number;
  try {
    fd = fs.openSync(partial, O_RDWR | O_NOFOLLOW);
  } catch (error) {
    // Where it cannot be, creating it tells why.
    if (hasCode(error, "ENOENT", "ENOTDIR", "ENAMETOOLONG")) return;
    if (hasCode(error, "ELOOP", "EISDIR", "ENXIO")) {
      const text = `${partial}, the name of unfinished images of ${file}, is taken by something else: remove that first`;
      throw new MultifdError("TARGET_REFUSED", text, { path: partial }, error);
    }
    throw ioError(error, `opening ${partial}`);
  }
  try {
    if (!tryLock(fd)) throw busy(file);
    if (isAt(fd, partial)) fs.rmSync(partial, { force: true });
  } finally {
    fs.closeSync(fd);
  }
}

/** Whether the open file is still the one at this name. */
export function isAt(fd: number, name: string): boolean {
  const there = fs.lstatSync(name, { throwIfNoEntry: false });
  const { dev, ino } = fs.fstatSync(fd);
  return there?.dev === dev && there.ino === ino;
}

function busy(file: string): MultifdError {
  return new MultifdError(
    "TARGET_BUSY",
    `another save is writing ${file}: wait for it, or choose another path`,
  );
}

function openFile(name: string, flags: number): number {
  try {
    return fs.openSync(name, flags, OWNER_ONLY);
  } catch (error) {
    if (hasCode(error, "EEXIST")) throw busy(name);
    throw noTarget(error, name) ?? error;
  }
}

/** Writes one aligned page: O_DIRECT may be refused as late as here. */
async function probeWrite(fd: number): Promise<void> {
  await writeAligned(fd, new Uint8Array(1), 0);
}
