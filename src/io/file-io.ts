import fs from "node:fs";
import { promisify } from "node:util";
import { MultifdError } from "../errors.ts";
import { alignedBuffer } from "./slab-arena.ts";

/** Alignment that every O_DIRECT file system accepts, for memory, offsets and lengths. */
export const DIRECT_ALIGNMENT = 4096;

const fsWrite = promisify(fs.write) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesWritten: number }>;
const fsRead = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;

/** Writes a whole buffer at a file position. */
export type WriteAt = (fd: number, data: Uint8Array, position: number) => Promise<void>;
/** Fills a whole buffer from a file position; what lies behind the end of the file is an error. */
export type ReadAt = (fd: number, into: Uint8Array, position: number) => Promise<void>;

/** Rounds up to a multiple of the O_DIRECT alignment. */
export function padded(bytes: number): number {
  return Math.ceil(bytes / DIRECT_ALIGNMENT) * DIRECT_ALIGNMENT;
}

/**
 * A short write is retried from the last aligned byte, because O_DIRECT takes no other; a write that gets
 * nowhere is an error and never a success (QEMU's own file: path counts a short write as done).
 */
export const writeAt: WriteAt = async (fd, data, position) => {
  let done = 0;
  while (done < data.byteLength) {
    let written: number;
    try {
      ({ bytesWritten: written } = await fsWrite(fd, data, done, data.byteLength - done, position + done));
    } catch (error) {
      if (hasCode(error, "EINTR")) continue;
      throw ioError(error, "write", position + done);
    }
    const advanced = done + written === data.byteLength ? written : written - (written % DIRECT_ALIGNMENT);
    if (advanced === 0) {
      throw new MultifdError(
        "IO",
        `writing at offset ${position + done} made no progress: the device took ${written} bytes`,
        {
          offset: position + done,
        },
      );
    }
    done += advanced;
  }
};

/** The same through the page cache, and not before it returns: for what is too little to be worth a thread. */
export function writeAtNow(fd: number, data: Uint8Array, position: number): void {
  for (let done = 0; done < data.byteLength; ) {
    try {
      done += fs.writeSync(fd, data, done, data.byteLength - done, position + done);
    } catch (error) {
      if (!hasCode(error, "EINTR")) throw ioError(error, "write", position + done);
    }
  }
}

export const readAt: ReadAt = (fd, into, position) => readAtLeast(fd, into, into.byteLength, position);

/** Fills the first `needed` bytes of a buffer, and more of it where the file has more. */
export async function readAtLeast(
  fd: number,
  into: Uint8Array,
  needed: number,
  position: number,
): Promise<void> {
  let done = 0;
  while (done < needed) {
    let got: number;
    try {
      ({ bytesRead: got } = await fsRead(fd, into, done, into.byteLength - done, position + done));
    } catch (error) {
      if (hasCode(error, "EINTR")) continue;
      throw ioError(error, "read", position + done);
    }
    if (got === 0) {
      throw new MultifdError(
        "IMAGE_DAMAGED",
        `the file ends at offset ${position + done}, inside data that belongs to the image: it was cut`,
        {
          offset: position + done,
        },
      );
    }
    done += got;
  }
}

/** Reads `length` bytes at an aligned position of a file that may be open with O_DIRECT. */
export async function readAligned(fd: number, position: number, length: number): Promise<Uint8Array> {
  const buffer = alignedBuffer(padded(length));
  await readAt(fd, buffer, position);
  return buffer.subarray(0, length);
}

/** Reads bytes at any place of a file that may be open with O_DIRECT. */
export async function readSpan(fd: number, offset: number, length: number): Promise<Uint8Array> {
  const from = offset - (offset % DIRECT_ALIGNMENT);
  const buffer = alignedBuffer(padded(offset + length) - from);
  await readAtLeast(fd, buffer, offset + length - from, from);
  return buffer.subarray(offset - from, offset - from + length);
}

/** Writes bytes at an aligned position, padded with zeros, to a file that may be open with O_DIRECT. */
export async function writeAligned(fd: number, data: Uint8Array, position: number): Promise<void> {
  const buffer = alignedBuffer(padded(data.byteLength));
  buffer.set(data);
  await writeAt(fd, buffer, position);
}

export function hasCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}

/** The typed error for a failed system call on the image. */
export function ioError(error: unknown, action: string, position?: number): MultifdError {
  if (error instanceof MultifdError) return error;
  const errno = error instanceof Error && "code" in error ? String(error.code) : "unknown";
  const where = position === undefined ? "" : ` at offset ${position}`;
  const details = { errno, ...(position === undefined ? {} : { offset: position }) };
  if (errno === "ENOSPC" || errno === "EDQUOT") {
    return new MultifdError(
      "NO_SPACE",
      `no room left on the image's device (${action}${where}): free some space and try again`,
      details,
      error,
    );
  }
  if (errno === "EFBIG") {
    return new MultifdError(
      "NO_SPACE",
      `the image grew beyond the largest file that is allowed here (${action}${where}): raise the limit (ulimit -f) or use another file system`,
      details,
      error,
    );
  }
  if (errno === "EROFS" || errno === "EACCES" || errno === "EPERM") {
    return new MultifdError(
      "READ_ONLY",
      `${action}${where} is not permitted (${errno}): check the file's owner, mode and mount`,
      details,
      error,
    );
  }
  const text = error instanceof Error ? error.message : String(error);
  return new MultifdError("IO", `${action}${where} failed: ${text}`, details, error);
}
