import { bitmapBytes, rangeCount } from "../../formats/mapped-ram/model.ts";
import { readSpan } from "../../io/file-io.ts";
import type { PageMemory } from "../../pool/paging/page-map.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";

const PIECE = 1024 * 1024;

/**
 * Takes what tells of the pages into memory, so that no request has to wait for it: for each GiB of RAM 32 KiB of bitmap and
 * 64 KiB of checksums.
 * @throws MultifdError IO
 */
export async function readPageMemory(
  fd: number,
  { stream, sumsOffset }: MappedContents,
): Promise<PageMemory> {
  const { blocks } = stream;
  const bitmaps: SharedArrayBuffer[] = [];
  for (const block of blocks) bitmaps.push(await readShared(fd, block.bitmapOffset, bitmapBytes(block)));
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
