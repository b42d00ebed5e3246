import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { hasCode, ioError, writeAt } from "../../io/file-io.ts";
import { punchHole } from "../../io/libc.ts";
import { alignedBuffer } from "../../io/slab-arena.ts";
import type { RamTables } from "../../pool/placing/ram-tables.ts";

const PIECE = 1024 * 1024;

/** Makes sure that absent pages of a block read as zeros, in a file that was empty: some were written in an earlier epoch. */
export async function clearAbsent(fd: number, ram: RamTables, number: number): Promise<void> {
  const { usedLength, pageSize, pagesOffset } = ram.blocks[number] as MappedBlock;
  for (const { first, count } of idleRuns(ram.roomy(number), ram.bitmap(number), usedLength / pageSize)) {
    const offset = pagesOffset + first * pageSize;
    try {
      punchHole(fd, offset, count * pageSize);
    } catch (error) {
      if (!hasCode(error, "EOPNOTSUPP", "ENOSYS", "ENOTSUP"))
        throw ioError(error, "clearing zero pages", offset);
      await writeZeros(fd, offset, count * pageSize);
    }
  }
}

async function writeZeros(fd: number, offset: number, length: number): Promise<void> {
  const zeros = alignedBuffer(Math.min(PIECE, length));
  for (let at = 0; at < length; at += zeros.length) {
    await writeAt(fd, zeros.subarray(0, Math.min(zeros.length, length - at)), offset + at);
  }
}

/** Pages that have, or may have, room in the file without being present. */
export function* idleRuns(
  roomy: Uint8Array,
  present: Uint8Array,
  pages: number,
): Generator<{ first: number; count: number }> {
  let first = -1;
  for (let page = 0; page <= pages; page++) {
    const idle = page < pages ? (roomy[page >> 3] as number) & ~(present[page >> 3] as number) : 0;
    // Whole bytes of the bitmaps at a time, where nothing changes.
    if (page % 8 === 0 && page + 8 <= pages && idle === (first < 0 ? 0 : 0xff)) {
      page += 7;
      continue;
    }
    const inRun = ((idle >> (page & 7)) & 1) === 1;
    if (inRun && first < 0) first = page;
    if (inRun || first < 0) continue;
    yield { first, count: page - first };
    first = -1;
  }
}

/** @param page its number within the block */
export function isPresent(bits: Uint8Array, page: number): boolean {
  return (((bits[page >> 3] as number) >> (page & 7)) & 1) === 1;
}
