import { setImmediate as nextTurn } from "node:timers/promises";
import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { hasCode, ioError, writeAt } from "../../io/file-io.ts";
import { punchHole } from "../../io/libc.ts";
import { alignedBuffer } from "../../io/slab-arena.ts";
import type { RamTables } from "../../pool/placing/ram-tables.ts";

const PIECE = 1024 * 1024;
/** So many take a few milliseconds: a signal is heard. */
const RUNS_A_TURN = 1024;

/**
 * Makes holes of a block's pages that are not present, but have room in the file: it was reserved, or they were written in an
 * earlier epoch.
 * @param otherwise what to do where the file system makes no holes: leave what is there, or write zeros, for a file in which
 *   absent pages must read as zeros
 * @throws MultifdError IO, NO_SPACE
 */
export async function punchAbsent(
  fd: number,
  ram: RamTables,
  number: number,
  otherwise: "leave" | "write",
): Promise<void> {
  const { usedLength, pageSize, pagesOffset } = ram.blocks[number] as MappedBlock;
  let runs = 0;
  for (const { first, count } of idleRuns(ram.roomy(number), ram.bitmap(number), usedLength / pageSize)) {
    const [offset, length] = [pagesOffset + first * pageSize, count * pageSize];
    if (!punched(fd, offset, length)) {
      if (otherwise === "leave") return;
      await writeZeros(fd, offset, length);
    }
    if (++runs % RUNS_A_TURN === 0) await nextTurn();
  }
}

/** False where the file system cannot. */
function punched(fd: number, offset: number, length: number): boolean {
  try {
    punchHole(fd, offset, length);
    return true;
  } catch (error) {
    if (hasCode(error, "EOPNOTSUPP", "ENOSYS", "ENOTSUP")) return false;
    throw ioError(error, "making holes of zero pages", offset);
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
