import { type FileHandle, open } from "node:fs/promises";

const PAGE = 4096;
const CHUNK = 2 ** 20;

export interface DirtyRam {
  /** The pass that the guest was in; 0 when it has not begun. */
  readonly sequence: number;
  /** How many pages that pass had written: where the cursor was. */
  readonly cursor: number;
  /** Pages that no single instant of the guest explains. */
  readonly violations: number;
  readonly firstViolation: number | null;
}

/** Where a dirtier (see boot-sector.ts) walks, within a file that holds guest RAM from address 0. */
export interface WalkedRange {
  readonly start: number;
  readonly end: number;
}

/** The pass that a guest whose RAM is this file is in right now; 0 when it has not begun. */
export async function currentPass(path: string, { start }: WalkedRange): Promise<number> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(Buffer.alloc(8), 0, 8, start);
    return passOf(buffer, 0) ?? 0;
  } finally {
    await file.close();
  }
}

/**
 * Is this RAM one instant of the guest? The pages up to one cursor must carry pass s, all others s-1.
 * Reading it needs a stopped guest in its second pass or later: throws when not one pass was completed,
 * as what a page held before the guest began is unknown.
 */
export async function checkDirtyRam(path: string, range: WalkedRange): Promise<DirtyRam> {
  const file = await open(path);
  try {
    const state = { sequence: 0, cursor: 0, violations: 0, firstViolation: null as number | null };
    let behindCursor = false;
    for await (const [page, pass] of passes(file, range)) {
      if (page === 0) {
        if (pass === undefined || pass < 2) throw new Error(`the guest in ${path} has not completed a pass`);
        state.sequence = pass;
      }
      behindCursor ||= pass !== state.sequence;
      if (!behindCursor) state.cursor++;
      else if (pass !== state.sequence - 1) {
        state.violations++;
        state.firstViolation ??= page;
      }
    }
    return state;
  } finally {
    await file.close();
  }
}

/** Page number within the range and the pass it carries, in order. */
async function* passes(
  file: FileHandle,
  { start, end }: WalkedRange,
): AsyncGenerator<[number, number | undefined]> {
  const chunk = Buffer.alloc(CHUNK);
  for (let position = start; position < end; position += CHUNK) {
    const { bytesRead } = await file.read(chunk, 0, Math.min(CHUNK, end - position), position);
    if (bytesRead < Math.min(CHUNK, end - position))
      throw new Error(`RAM file ends at ${position + bytesRead}`);
    for (let offset = 0; offset < bytesRead; offset += PAGE) {
      yield [(position - start + offset) / PAGE, passOf(chunk, offset)];
    }
  }
}

/** undefined for a torn word, or one that the dirtier did not write. */
function passOf(buffer: Buffer, offset: number): number | undefined {
  const pass = buffer.readUInt32LE(offset);
  return buffer.readUInt32LE(offset + 4) === ~pass >>> 0 ? pass : undefined;
}
