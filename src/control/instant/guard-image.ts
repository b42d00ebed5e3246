import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError } from "../../io/file-io.ts";
import { isImmutable, type SystemError, setImmutable, tryLock } from "../../io/libc.ts";
import type { Log } from "../options.ts";

/** Keeps an image as it is while a VM depends on it. */
export interface ImageGuard {
  /** Nobody depends on it any more. The lock goes with the image's descriptor. */
  release(): void;
}

/**
 * Locks an image against saves and other restores and, where the kernel lets us, makes it immutable: it can then be neither
 * changed nor removed nor replaced, also when this process is killed; so a flag that is left over is no accident.
 * @param fd the image, open for reading, and marked already: an immutable file takes no mark
 * @throws MultifdError TARGET_BUSY, IO
 */
export function guardImage(fd: number, image: string, log: Log): ImageGuard {
  lockForUse(fd, image);
  try {
    // Of a device it is the name that would be protected.
    if (fs.fstatSync(fd).isFile()) setImmutable(fd, true);
  } catch (error) {
    const errno = (error as SystemError).code;
    const text = `${image} cannot be made immutable (${errno}): nothing but you keeps it from being removed until the VM has all of its RAM`;
    log.info({ image, errno }, text);
  }
  return {
    release: () => {
      try {
        unguard(fd, image);
      } catch (error) {
        log.warn({ image }, (error as Error).message);
      }
    },
  };
}

/** Lets an image be changed again. Throws MultifdError READ_ONLY (that takes the right to do so), IO. */
export function unguard(fd: number, image: string): void {
  if (!isImmutable(fd)) return;
  try {
    setImmutable(fd, false);
  } catch (error) {
    const { code, details } = ioError(error, "clearing a flag");
    const text = `${image} is immutable, as an instant restore by root makes its image, and it takes root to change that: chattr -i ${image}`;
    throw new MultifdError(code, text, details, error);
  }
}

/**
 * Takes the exclusive lock of an image that is read. Where the file system has none for readers (NFS), nobody else has it either.
 * @throws MultifdError TARGET_BUSY
 */
export function lockForUse(fd: number, image: string): void {
  try {
    if (tryLock(fd)) return;
  } catch (error) {
    if (hasCode(error, "EBADF", "ENOLCK", "EOPNOTSUPP", "ENOSYS")) return;
    throw ioError(error, `locking ${image}`);
  }
  const text = `somebody else reads or writes ${image}, and a VM that is resumed from it needs it alone: wait for that, or end it`;
  throw new MultifdError("TARGET_BUSY", text, { image });
}
