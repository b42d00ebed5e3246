import { ChannelWalker } from "../src/formats/migration/channel-walker.ts";
import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { blocksFrom, readBlock, StoredChecksums } from "../src/pool/block-reader.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import type { Answer, Checked, CheckTask } from "../src/pool/messages.ts";

const arena = new SlabArena();

/** Pool task: reads one channel of the image, checks every block and walks its stream again. */
export function check(task: CheckTask): Promise<Answer<Checked>> {
  return answering(() => checkChannel(task));
}

async function checkChannel(task: CheckTask): Promise<Checked> {
  const control = new ControlBlock(task.control);
  const walker = new ChannelWalker();
  const slots = Array.from({ length: task.slots }, () => arena.take(task.record.blockBytes));
  const checksums = new StoredChecksums(task.image);
  let blocks = 0;
  try {
    const pieces = blocksFrom(task.record, 0);
    for await (const { piece, bytes } of readAhead(pieces, slots, (into, block) =>
      readBlock(task.image, block, into, checksums),
    )) {
      if (control.giveUp) break;
      walker.push(bytes);
      blocks++;
      control.setMoved(task.connection, piece.position + piece.length);
    }
    return { summary: walker.finish(), blocks };
  } finally {
    arena.give(slots);
  }
}
