import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { ioError } from "../../io/file-io.ts";
import { isAt } from "../../io/image-target/replacement.ts";
import { tryLock } from "../../io/libc.ts";
import type { ManagedPlace } from "./directory.ts";

const { O_RDWR, O_CREAT, O_NOFOLLOW } = fs.constants;

/**
 * Keeps everybody else from working on this managed VM for the time of `work`.
 * @throws MultifdError TARGET_BUSY, IO, and what `work` throws
 */
export async function withManagedLock<T>(place: ManagedPlace, work: () => Promise<T>): Promise<T> {
  const fd = take(place);
  try {
    return await work();
  } finally {
    // While it is still locked: afterwards it may be somebody else's.
    fs.rmSync(place.lock, { force: true });
    fs.closeSync(fd);
  }
}

function take({ name, lock }: ManagedPlace): number {
  for (;;) {
    const fd = open(lock);
    if (!tryLock(fd)) {
      fs.closeSync(fd);
      throw new MultifdError("TARGET_BUSY", `${name} is being started, saved or removed by another process`, {
        path: lock,
      });
    }
    if (isAt(fd, lock)) return fd;
    // Who had it has just removed it.
    fs.closeSync(fd);
  }
}

function open(lock: string): number {
  try {
    return fs.openSync(lock, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
  } catch (error) {
    throw ioError(error, `opening ${lock}`);
  }
}
