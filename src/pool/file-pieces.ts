import { DIRECT_ALIGNMENT, padded, readAtLeast } from "../io/file-io.ts";
import type { Piece } from "../io/read-ahead.ts";

/** Largest piece. */
export const PIECE_BYTES: number = 1024 * 1024;

/** The pieces of a file that hold the bytes from `from` to `end`; they begin where O_DIRECT can read. */
export function* piecesOfFile(from: number, end: number): Generator<Piece, void, undefined> {
  for (let at = from - (from % DIRECT_ALIGNMENT); at < end; at += PIECE_BYTES) {
    yield { offset: at, length: Math.min(PIECE_BYTES, end - at) };
  }
}

/** Reads one of them; behind the last one the file may end. */
export function readPiece(fd: number): (into: Uint8Array, piece: Piece) => Promise<void> {
  return (into, { offset, length }) => readAtLeast(fd, into.subarray(0, padded(length)), length, offset);
}
