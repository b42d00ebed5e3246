import fs from "node:fs";
import { hasCode, writeAtNow } from "../../io/file-io.ts";
import { dropCached, pageBytes } from "../../io/libc.ts";
import type { BorrowedImage } from "../messages.ts";

/** Below this, what O_DIRECT costs is not the bytes but the room that it has to find for each write. */
const SHORT_BYTES = 32 * 1024;
/** As much is left to the page cache before the kernel is told to write it out and to forget it. */
const CACHED_BYTES = 8 * 1024 * 1024;
/**
 * Larger pages of the processor, or blocks of the file system, hold neighbours that others write with O_DIRECT at the same
 * time, and network file systems, which give larger ones, change from one way to the other by flushing all.
 */
const UNIT_BYTES = 4096;

/**
 * Pages that lie alone in their block are written through the page cache, by a descriptor of its own: an ext4 that finds
 * room for them later, for many at once, takes a third of the time of one that does so write by write under O_DIRECT
 * (bench:formats, --fill mix). Flushed with everything else, whatever descriptor that goes through.
 */
export class ShortRuns {
  readonly #image: BorrowedImage;
  /** Null before it is wanted, and where it cannot be had. */
  #fd: number | null = null;
  #opened: boolean;
  #cached = 0;

  /** @param useful false: all runs go the same way */
  constructor(image: BorrowedImage, useful: boolean) {
    this.#image = image;
    this.#opened = !useful || !image.directIo;
  }

  /** Writes a short run. False: it is none, or has to go the way of the long ones. */
  write(bytes: Uint8Array, offset: number): boolean {
    if (bytes.length >= SHORT_BYTES) return false;
    const fd = this.#descriptor();
    if (fd === null) return false;
    writeAtNow(fd, bytes, offset);
    this.#cached += bytes.length;
    if (this.#cached >= CACHED_BYTES) {
      this.#cached = 0;
      dropCached(fd);
    }
    return true;
  }

  close(): void {
    if (this.#fd !== null) fs.closeSync(this.#fd);
    this.#fd = null;
  }

  #descriptor(): number | null {
    if (this.#opened) return this.#fd;
    this.#opened = true;
    const file = `/proc/self/fd/${this.#image.fd}`;
    if (pageBytes() > UNIT_BYTES || fs.statfsSync(file).bsize > UNIT_BYTES) return null;
    try {
      this.#fd = fs.openSync(file, fs.constants.O_WRONLY);
    } catch (error) {
      // A manager's descriptor may be of a file that we may not open; and where descriptors run out, one will do.
      if (!hasCode(error, "EACCES", "EPERM", "EROFS", "ENOENT", "EMFILE", "ENFILE")) throw error;
    }
    return this.#fd;
  }
}
