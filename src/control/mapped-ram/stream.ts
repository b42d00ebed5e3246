import { crc32 } from "node:zlib";
import { type MappedBlock, type MappedStream, streamSpans } from "../../formats/mapped-ram/model.ts";
import { PresentPages } from "../../formats/mapped-ram/ranges.ts";
import { MappedStreamWalker } from "../../formats/mapped-ram/stream.ts";
import { readSpan } from "../../io/file-io.ts";

/** A block's header has fewer bytes, and so has what stands before the first one. */
const HEADER_PIECE = 4096;
const PIECE = 1024 * 1024;

/**
 * Walks QEMU's stream; of its pages and bitmaps nothing is read.
 * @param end behind its last byte
 * @throws MultifdError NOT_AN_IMAGE, UNSUPPORTED_VERSION, IMAGE_DAMAGED, IO
 */
export async function walkStream(fd: number, base: number, end: number): Promise<MappedStream> {
  const walker = new MappedStreamWalker(base);
  for (let piece = HEADER_PIECE; walker.wanted < end; ) {
    const at = walker.wanted;
    const length = Math.min(piece, end - at);
    walker.push(await readSpan(fd, at, length));
    // What was not passed over is read on: device state, most likely.
    piece = walker.wanted === at + length ? PIECE : HEADER_PIECE;
  }
  return walker.finish();
}

/** What reading the stream's own bytes tells. */
export interface StreamSums {
  /** CRC-32 of them all, in ascending order. */
  readonly crc32: number;
  /** Pages of each block that its bitmap says are there. */
  readonly presentPages: readonly number[];
}

/** Reads the stream's own bytes, bitmaps included. */
export async function sumStream(
  fd: number,
  stream: { readonly base: number; readonly end: number; readonly blocks: readonly MappedBlock[] },
): Promise<StreamSums> {
  let crc = 0;
  const presentPages: number[] = [];
  for (const [number, span] of streamSpans(stream).entries()) {
    const block = stream.blocks[number];
    const pages = block === undefined ? null : new PresentPages(block);
    const bitmapAt = block?.bitmapOffset ?? Number.POSITIVE_INFINITY;
    for (let at = span.offset; at < span.offset + span.length; ) {
      const length = Math.min(PIECE - (at % PIECE), span.offset + span.length - at);
      const bytes = await readSpan(fd, at, length);
      crc = crc32(bytes, crc);
      if (at + length > bitmapAt) pages?.push(bytes.subarray(Math.max(0, bitmapAt - at)));
      at += length;
    }
    if (pages !== null) presentPages.push(pages.count);
  }
  return { crc32: crc, presentPages };
}
