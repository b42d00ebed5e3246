import { randomBytes } from "node:crypto";
import { type FileHandle, open, unlink } from "node:fs/promises";
import { join } from "node:path";
import { pickRamDirectory, type RamDirectory } from "./ram-dir.ts";

/** Guest RAM in a file that both QEMU and we can open by `path` for as long as it is not closed. */
export interface RamFile {
  readonly path: string;
  readonly bytes: number;
  readonly place: RamDirectory;
  /** Back to all zeros, as RAM is before a restore: zero pages are not sent again. */
  zero(): Promise<void>;
  /** Gives the memory back once QEMU has ended too. */
  close(): Promise<void>;
}

/**
 * A file of `bytes` zeros in a directory with room. It has no name: it is reached through our own
 * descriptor in /proc, so even a SIGKILL of this process leaves no gigabytes behind.
 * Rejects with NO_SPACE (see pickRamDirectory).
 */
export async function createRamFile(bytes: number, directory?: string): Promise<RamFile> {
  const place = await pickRamDirectory(bytes, directory);
  const name = join(place.directory, `multifd-ram-${randomBytes(8).toString("hex")}`);
  const file = await open(name, "wx+", 0o600);
  try {
    await unlink(name);
    await file.truncate(bytes);
  } catch (error) {
    await file.close();
    throw error;
  }
  return {
    path: `/proc/${process.pid}/fd/${file.fd}`,
    bytes,
    place,
    zero: () => zero(file, bytes),
    close: () => file.close(),
  };
}

async function zero(file: FileHandle, bytes: number): Promise<void> {
  await file.truncate(0);
  await file.truncate(bytes);
}
