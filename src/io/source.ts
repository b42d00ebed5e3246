import fs from "node:fs";
import { MultifdError } from "../errors.ts";
import { hasCode, ioError, padded } from "./file-io.ts";
import { openDirect, probeRead } from "./image-target/direct-io.ts";
import { deviceBytes, inheritedFd, kindOfStat } from "./image-target/file-kind.ts";
import { duplicate } from "./libc.ts";

/** A file that an image is read from. */
export interface Source {
  readonly fd: number;
  /** File offset at which the image starts, a multiple of 4096. */
  readonly base: number;
  readonly directIo: boolean;
  /** Bytes from the base to the end of the file or device. */
  readonly available: number;
  close(): void;
}

export interface SourceRequest {
  /** Path or `fd:N`. */
  readonly image: string;
  readonly offset: number;
  readonly directIo: "auto" | "on" | "off";
  readonly onNote: (note: string) => void;
}

/** Opens an image for reading; what it holds is not looked at. Throws IO, TARGET_REFUSED or DIRECT_IO_REFUSED. */
export async function openSource(request: SourceRequest): Promise<Source> {
  const base = padded(request.offset);
  try {
    const { fd, directIo } = await openDirect(
      request.directIo,
      request.image,
      (extra) => openForReading(request.image, extra),
      (opened) => probeRead(opened, base),
      request.onNote,
    );
    return {
      fd,
      base,
      directIo,
      available: Math.max(0, sizeOf(fd, request.image) - base),
      close: () => fs.closeSync(fd),
    };
  } catch (error) {
    if (hasCode(error, "ENOENT")) {
      throw new MultifdError(
        "IO",
        `there is no file ${request.image}: check the path`,
        { errno: "ENOENT" },
        error,
      );
    }
    if (hasCode(error, "ELOOP")) {
      const text = `${request.image} is a loop of symbolic links: give another path`;
      throw new MultifdError("TARGET_REFUSED", text, { errno: "ELOOP" }, error);
    }
    throw ioError(error, `opening ${request.image}`);
  }
}

function openForReading(image: string, extra: number): number {
  const inherited = inheritedFd(image);
  if (inherited === null) {
    // Opening a FIFO would wait for a writer for ever.
    kindOfStat(fs.statSync(image), image);
    return fs.openSync(image, fs.constants.O_RDONLY | extra);
  }
  kindOfStat(fs.fstatSync(inherited), image);
  try {
    return fs.openSync(`/proc/self/fd/${inherited}`, fs.constants.O_RDONLY | extra);
  } catch (error) {
    if (extra !== 0) throw error;
    return duplicate(inherited);
  }
}

function sizeOf(fd: number, name: string): number {
  const stat = fs.fstatSync(fd);
  return kindOfStat(stat, name) === "block" ? deviceBytes(stat.rdev) : stat.size;
}
