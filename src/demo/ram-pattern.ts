import { createCipheriv, createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";

const PAGE = 4096;
const CHUNK = 256 * 1024;

export interface RamComparison {
  /** Pages of 4096 bytes in the longer file; a last partial page counts. */
  readonly pages: number;
  readonly differing: number;
  readonly firstDifferingPage: number | null;
}

/**
 * Overwrites the file's first `bytes` (a multiple of 4096) with pages as guests have them: random ones
 * that nothing compresses, patterned ones, zero ones, alone and in long runs. The same seed gives
 * the same bytes. About a second per GiB. Rejects with the signal's reason when it aborts.
 */
export async function fillRam(
  path: string,
  bytes: number,
  seed: number,
  signal?: AbortSignal,
): Promise<void> {
  const random = createCipheriv("aes-128-ctr", key(seed), Buffer.alloc(16));
  const zeros = Buffer.alloc(CHUNK);
  const file = await open(path, "r+");
  try {
    let writing: Promise<unknown> = Promise.resolve(); // the next chunk is made while this one is written
    for (let offset = 0; offset < bytes; offset += CHUNK) {
      signal?.throwIfAborted();
      const chunk = random.update(zeros);
      shapePages(chunk, offset / PAGE);
      await writing;
      writing = file.write(chunk, 0, Math.min(CHUNK, bytes - offset), offset);
    }
    await writing;
  } finally {
    await file.close();
  }
}

/** AES in counter mode is the fastest deterministic randomness in Node, by an order of magnitude. */
function key(seed: number): Buffer {
  return createHash("sha256").update(`guest RAM ${seed}`).digest().subarray(0, 16);
}

/** Turns a chunk of random bytes into the mix; the first byte of chunk and page decides what becomes of it. */
export function shapePages(chunk: Buffer, firstPage: number): void {
  const runKind = chunk.readUInt8(0);
  if (runKind < 32) return void chunk.fill(0);
  if (runKind < 64) return;
  for (let start = 0; start < chunk.length; start += PAGE) {
    const kind = chunk.readUInt8(start);
    if (kind < 96) continue;
    const page = chunk.subarray(start, start + PAGE);
    if (kind < 160) page.fill(`page ${firstPage + start / PAGE} of the guest. `);
    else page.fill(0);
  }
}

/**
 * Compares two files page by page; where one is longer, the pages that the other lacks differ.
 * Rejects with the signal's reason when it aborts.
 */
export async function compareFiles(a: string, b: string, signal?: AbortSignal): Promise<RamComparison> {
  const [fileA, fileB] = await Promise.all([open(a), open(b)]);
  try {
    const result = { pages: 0, differing: 0, firstDifferingPage: null as number | null };
    const chunkA = Buffer.allocUnsafe(CHUNK);
    const chunkB = Buffer.allocUnsafe(CHUNK);
    for (;;) {
      signal?.throwIfAborted();
      const position = result.pages * PAGE;
      const [left, right] = await Promise.all([
        readChunk(fileA, chunkA, position),
        readChunk(fileB, chunkB, position),
      ]);
      comparePages(left, right, result);
      if (left.length < CHUNK && right.length < CHUNK) return result;
    }
  } finally {
    await Promise.all([fileA.close(), fileB.close()]);
  }
}

async function readChunk(file: FileHandle, chunk: Buffer, position: number): Promise<Buffer> {
  let filled = 0;
  while (filled < chunk.length) {
    const { bytesRead } = await file.read(chunk, filled, chunk.length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return chunk.subarray(0, filled);
}

function comparePages(
  left: Buffer,
  right: Buffer,
  result: { pages: number; differing: number; firstDifferingPage: number | null },
): void {
  const pages = Math.ceil(Math.max(left.length, right.length) / PAGE);
  if (!left.equals(right)) {
    for (let page = 0; page < pages; page++) {
      const [start, end] = [page * PAGE, (page + 1) * PAGE];
      if (left.subarray(start, end).equals(right.subarray(start, end))) continue;
      result.differing++;
      result.firstDifferingPage ??= result.pages + page;
    }
  }
  result.pages += pages;
}
