import { type FileHandle, open } from "node:fs/promises";
import { type ErrorCode, MultifdError } from "../../errors.ts";
import { punchHole } from "../../io/libc.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { memoryBackends } from "../memory-backends.ts";

const CHUNK = 4 * 2 ** 20;

/**
 * Sees to it that RAM in files is zero. A stream that leaves zero pages out relies on that: over a file with the
 * content of an earlier run QEMU completes with wrong RAM and says nothing.
 * @param clear empties such files instead of refusing them
 * @throws MultifdError RAM_NOT_EMPTY, IO
 */
export async function checkRamFiles(monitor: Monitor, clear: boolean): Promise<void> {
  for (const { id, path } of await memoryBackends(monitor)) {
    if (path === null) continue;
    const file = await openRam(path, clear);
    try {
      const { size } = await file.stat();
      const used = await firstData(file, size);
      if (used === null) continue;
      if (!clear) {
        const text = `the RAM of the destination lies in ${path} (${id}), which holds data (first at byte ${used}): the image needs it zeroed; use a fresh file, or --clear-ram to empty this one`;
        throw new MultifdError("RAM_NOT_EMPTY", text, { path, offset: used });
      }
      punchHole(file.fd, 0, size);
    } finally {
      await file.close();
    }
  }
}

/**
 * Whether RAM in files is zero, or is now.
 * @param clear empties such files
 */
export async function isRamZero(monitor: Monitor, clear: boolean): Promise<boolean> {
  try {
    await checkRamFiles(monitor, clear);
    return true;
  } catch (error) {
    if (clear || !(error instanceof MultifdError) || !DOUBTS.includes(error.code)) throw error;
    return false;
  }
}

/** It holds data, or nobody can look. */
const DOUBTS: readonly ErrorCode[] = ["RAM_NOT_EMPTY", "IO"];

async function openRam(path: string, clear: boolean): Promise<FileHandle> {
  try {
    return await open(path, clear ? "r+" : "r");
  } catch (error) {
    const text = `cannot look whether the destination's RAM in ${path} is zero: ${(error as Error).message}; use --force if you know that it is`;
    throw new MultifdError("IO", text, { path }, error);
  }
}

/** Offset of the first byte that is not zero, to a chunk's precision; null where all are zero. */
async function firstData(file: FileHandle, size: number): Promise<number | null> {
  const { blocks, isDirectory } = await file.stat().then((stat) => ({
    blocks: stat.blocks,
    isDirectory: stat.isDirectory(),
  }));
  if (isDirectory || blocks === 0) return null;
  const chunk = Buffer.allocUnsafe(CHUNK);
  const zeros = Buffer.alloc(CHUNK);
  for (let offset = 0; offset < size; ) {
    const { bytesRead } = await file.read(chunk, 0, CHUNK, offset);
    if (bytesRead === 0) return null;
    if (!chunk.subarray(0, bytesRead).equals(zeros.subarray(0, bytesRead))) return offset;
    offset += bytesRead;
  }
  return null;
}
