import { damaged } from "../../formats/image/damage.ts";
import { bitmapBytes, type MappedBlock, rangeCount } from "../../formats/mapped-ram/model.ts";
import { PresentPages } from "../../formats/mapped-ram/ranges.ts";
import { readSpan } from "../../io/file-io.ts";
import type { PageMemory } from "../../pool/paging/page-map.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";

const PIECE = 1024 * 1024;

/**
 * Takes what tells of the pages into memory, so that no request has to wait for it: for each GiB of RAM 32 KiB of bitmap and
 * 64 KiB of checksums.
 * @throws MultifdError IMAGE_DAMAGED (a bitmap has changed since it was checked), IO
 */
export async function readPageMemory(
  fd: number,
  { stream, presentPages, sumsOffset }: MappedContents,
): Promise<PageMemory> {
  const { blocks } = stream;
  const bitmaps: SharedArrayBuffer[] = [];
  for (const [number, block] of blocks.entries()) {
    const memory = await readShared(fd, block.bitmapOffset, bitmapBytes(block));
    const present = new PresentPages(block);
    present.push(new Uint8Array(memory));
    // A page that is lost here would never be missed.
    if (present.count !== presentPages[number]) throw bitmapDamaged(block);
    bitmaps.push(memory);
  }
  const ranges = blocks.reduce((sum, block) => sum + rangeCount(block), 0);
  return { bitmaps, sums: sumsOffset === null ? null : await readShared(fd, sumsOffset, 4 * ranges) };
}

async function readShared(fd: number, offset: number, length: number): Promise<SharedArrayBuffer> {
  const memory = new SharedArrayBuffer(length);
  const bytes = new Uint8Array(memory);
  for (let at = 0; at < length; at += PIECE) {
    bytes.set(await readSpan(fd, offset + at, Math.min(PIECE, length - at)), at);
  }
  return memory;
}

function bitmapDamaged({ name, bitmapOffset }: MappedBlock): Error {
  const what = `the bitmap of RAM block "${name}" at file offset ${bitmapOffset}`;
  return damaged(what, "it is not what it was when it was checked", { offset: bitmapOffset, block: name });
}
