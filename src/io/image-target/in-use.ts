import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { isImmutable, tryShare } from "../libc.ts";

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = fs.constants;

/**
 * Refuses to replace or remove a file that somebody needs as it is: who writes it in place, and an instant restore while its
 * VM depends on it, have its exclusive lock; and an immutable file stays where it is anyway, which is better said at once.
 * @throws MultifdError TARGET_BUSY
 */
export function refuseInUse(file: string): void {
  let fd: number;
  try {
    fd = fs.openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch {
    // There is none, or none that could be locked by this user; if that is in the way, replacing it tells why.
    return;
  }
  try {
    if (!tryShare(fd)) {
      const text = `${file} is in use: a save writes it, or a VM that was resumed from it still needs it; wait for that, or choose another path`;
      throw new MultifdError("TARGET_BUSY", text, { path: file });
    }
    if (!isImmutable(fd)) return;
    const text = `${file} is immutable, as an instant restore makes the image that its VM depends on until all of its RAM is there: complete that one (restore --resume), choose another path, or, if its VM is gone, chattr -i ${file}`;
    throw new MultifdError("TARGET_BUSY", text, { path: file });
  } finally {
    fs.closeSync(fd);
  }
}
