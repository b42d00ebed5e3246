import { MainWalker } from "../src/formats/migration/main-stream.ts";
import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import { PIECE_BYTES, piecesOfFile, readPiece } from "../src/pool/file-pieces.ts";
import type { Answer, Walked, WalkTask } from "../src/pool/messages.ts";

const SLOTS = 3;
const arena = new SlabArena();

/** Pool task: reads a migration stream that lies in a file as it came, and walks it to its end. */
export function walk(task: WalkTask): Promise<Answer<Walked>> {
  return answering(() => walkStream(task));
}

async function walkStream({ connection, fd, control: memory, offset, length }: WalkTask): Promise<Walked> {
  const control = new ControlBlock(memory);
  const walker = new MainWalker();
  const slots = Array.from({ length: SLOTS }, () => arena.take(PIECE_BYTES));
  let pieces = 0;
  try {
    for await (const { piece, bytes } of readAhead(
      piecesOfFile(offset, offset + length),
      slots,
      readPiece(fd),
    )) {
      if (control.giveUp) break;
      walker.push(bytes.subarray(Math.max(0, offset - piece.offset)));
      pieces++;
      control.setMoved(connection, piece.offset + piece.length - offset);
    }
    return { summary: walker.finish(), pieces };
  } finally {
    arena.give(slots);
  }
}
