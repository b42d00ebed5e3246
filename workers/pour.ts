import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { PIECE_BYTES, piecesOfFile, readPiece } from "../src/pool/file-pieces.ts";
import { alongLane } from "../src/pool/lane.ts";
import type { Answer, Fed, PourTask } from "../src/pool/messages.ts";

const SLOTS = 3;
const arena = new SlabArena();

/** Pool task: feeds a migration stream of one channel that lies in a file as it came. */
export function pour(task: PourTask): Promise<Answer<Fed>> {
  return answering(() => pourStream(task));
}

function pourStream(task: PourTask): Promise<Fed> {
  const { fd, offset, length } = task;
  return alongLane(task, length, async (lane) => {
    const slots = Array.from({ length: SLOTS }, () => arena.take(PIECE_BYTES));
    const from = offset + lane.position;
    try {
      for await (const { piece, bytes } of readAhead(
        piecesOfFile(from, offset + length),
        slots,
        readPiece(fd),
      )) {
        if (!(await lane.send([bytes.subarray(Math.max(0, from - piece.offset))]))) return false;
      }
      return true;
    } finally {
      arena.give(slots);
    }
  });
}
