import { MainWalker } from "../src/formats/migration/main-stream.ts";
import { DIRECT_ALIGNMENT, padded, readAtLeast } from "../src/io/file-io.ts";
import { type Piece, readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import type { Answer, Walked, WalkTask } from "../src/pool/messages.ts";

const PIECE_BYTES = 1024 * 1024;
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
    for await (const { piece, bytes } of readAhead(piecesFrom(offset, offset + length), slots, (into, one) =>
      readAtLeast(fd, into.subarray(0, padded(one.length)), one.length, one.offset),
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

/** The pieces of a file that hold the bytes from `from` to `end`; they begin where O_DIRECT can read. */
function* piecesFrom(from: number, end: number): Generator<Piece, void, undefined> {
  for (let at = from - (from % DIRECT_ALIGNMENT); at < end; at += PIECE_BYTES) {
    yield { offset: at, length: Math.min(PIECE_BYTES, end - at) };
  }
}
