import fs from "node:fs";
import { MultifdError } from "../../errors.ts";
import { hasCode, ioError } from "../file-io.ts";
import { alignedBuffer } from "../slab-arena.ts";

const { O_DIRECT } = fs.constants;

export interface OpenedFile {
  readonly fd: number;
  readonly directIo: boolean;
}

/**
 * Opens a file with O_DIRECT where it is wanted and works, and without where it is not refused.
 * @param open opens the file with the extra flags
 * @param probe tries an aligned access through the descriptor; it throws EINVAL where O_DIRECT does not work
 */
export async function openDirect(
  wanted: "auto" | "on" | "off",
  name: string,
  open: (extraFlags: number) => number,
  probe: (fd: number) => Promise<void>,
  onNote: (note: string) => void,
): Promise<OpenedFile> {
  if (wanted !== "off") {
    const fd = await tryDirect(open, probe);
    if (fd !== null) return { fd, directIo: true };
    if (wanted === "on") {
      throw new MultifdError(
        "DIRECT_IO_REFUSED",
        `${name} cannot be used with O_DIRECT here: use --direct-io auto or off, or another file system`,
      );
    }
    onNote(`${name} does not take O_DIRECT: going through the page cache`);
  }
  const fd = open(0);
  try {
    await probe(fd);
  } catch (error) {
    fs.closeSync(fd);
    throw ioError(error, `using ${name}`);
  }
  return { fd, directIo: false };
}

/** null where the file system, at opening or at the first access, does not know O_DIRECT. */
async function tryDirect(
  open: (extraFlags: number) => number,
  probe: (fd: number) => Promise<void>,
): Promise<number | null> {
  let fd: number;
  try {
    fd = open(O_DIRECT);
  } catch (error) {
    // EACCES, EPERM: a descriptor whose file may not be opened a second time.
    if (hasCode(error, "EINVAL", "EOPNOTSUPP", "ENOTSUP", "EACCES", "EPERM")) return null;
    throw error;
  }
  try {
    await probe(fd);
    return fd;
  } catch (error) {
    fs.closeSync(fd);
    if (hasCode(cause(error), "EINVAL", "EOPNOTSUPP", "ENOTSUP")) return null;
    throw error;
  }
}

function cause(error: unknown): unknown {
  return error instanceof MultifdError ? error.cause : error;
}

/** Reads one aligned page, whatever it holds: writing would destroy an old image before its time. */
export async function probeRead(fd: number, base: number): Promise<void> {
  const page = alignedBuffer(4096);
  await new Promise<void>((resolve, reject) => {
    fs.read(fd, page, 0, page.byteLength, base, (error) => (error ? reject(error) : resolve()));
  });
}
