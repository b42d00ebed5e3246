import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { blocksFrom, type Piece, readBlock, StoredChecksums } from "../src/pool/block-reader.ts";
import { Gates } from "../src/pool/gates.ts";
import { alongLane, type Lane } from "../src/pool/lane.ts";
import type { Answer, BorrowedImage, Fed, FeedTask } from "../src/pool/messages.ts";

export type ReadBlock = (
  image: BorrowedImage,
  block: Piece,
  slot: Uint8Array,
  checksums: StoredChecksums,
) => Promise<void>;

const arena = new SlabArena();

/** Pool task: feeds one channel of the image to the destination. */
export function feed(task: FeedTask): Promise<Answer<Fed>> {
  return answering(() => feedChannel(task, readBlock));
}

/** Sends one channel: blocks are read ahead and checked, then written as far as the gates are open. */
export function feedChannel(task: FeedTask, read: ReadBlock): Promise<Fed> {
  const { record, image } = task;
  const checksums = new StoredChecksums(image);
  const readPiece = (into: Uint8Array, piece: Piece): Promise<void> => read(image, piece, into, checksums);
  return alongLane(task, record.kind === "main" ? record.length : null, async (lane) => {
    const slots = Array.from({ length: task.slots }, () => arena.take(record.blockBytes));
    try {
      return await sendBlocks(task, lane, readPiece, slots);
    } finally {
      arena.give(slots);
    }
  });
}

/** Answers false when the run was given up before the end. */
async function sendBlocks(
  task: FeedTask,
  lane: Lane,
  read: (into: Uint8Array, piece: Piece) => Promise<void>,
  slots: readonly Uint8Array[],
): Promise<boolean> {
  const gates = new Gates(task, lane.control);
  gates.passed(lane.position);
  for await (const { piece, bytes } of readAhead(blocksFrom(task.record, lane.position), slots, read)) {
    const end = piece.position + piece.length;
    while (lane.position < end) {
      const open = await lane.unlessLost(gates.open(lane.position));
      if (lane.control.giveUp) return false;
      const part = bytes.subarray(lane.position - piece.position, Math.min(end, open) - piece.position);
      if (!(await lane.send([part]))) return false;
      gates.passed(lane.position);
    }
  }
  return true;
}
