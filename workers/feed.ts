import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { blocksFrom, type Piece, readBlock, StoredChecksums } from "../src/pool/block-reader.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import { Gates } from "../src/pool/gates.ts";
import type { Answer, BorrowedImage, Fed, FeedTask } from "../src/pool/messages.ts";
import { Outlet } from "../src/pool/outlet.ts";
import { paced, turnBytes } from "../src/pool/pacer.ts";

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

/**
 * Sends one channel: blocks are read ahead and checked, then written as far as the gates are open. Resolves when the
 * destination has read everything, or has ended after all was given up.
 */
export async function feedChannel(task: FeedTask, read: ReadBlock): Promise<Fed> {
  const control = new ControlBlock(task.control);
  control.take(task.connection);
  const outlet = new Outlet(task.socketFd, () => control.tailSent);
  const slots = Array.from({ length: task.slots }, () => arena.take(task.record.blockBytes));
  const checksums = new StoredChecksums(task.image);
  const readPiece = (into: Uint8Array, piece: Piece): Promise<void> =>
    read(task.image, piece, into, checksums);
  const started = performance.now();
  try {
    const whole = await sendAll(task, control, outlet, readPiece, slots);
    const activeMs = performance.now() - started;
    if (whole) await seeThrough(task, control, outlet);
    else await outlet.ended();
    return { bytes: task.record.length, activeMs };
  } finally {
    arena.give(slots);
    outlet.close();
  }
}

/** Answers false when the run was given up before the end. */
async function sendAll(
  task: FeedTask,
  control: ControlBlock,
  outlet: Outlet,
  read: (into: Uint8Array, piece: Piece) => Promise<void>,
  slots: readonly Uint8Array[],
): Promise<boolean> {
  const { record } = task;
  const gates = new Gates(task, control);
  gates.passed(task.alreadySent);
  for await (const { piece, bytes } of readAhead(blocksFrom(record, task.alreadySent), slots, read)) {
    const end = piece.position + piece.length;
    let position = piece.position + piece.skip;
    while (position < end) {
      const open = await outlet.unlessLost(gates.open(position));
      const until = Math.min(end, open, position + turnBytes(task.rate));
      if (control.giveUp) return false;
      const part = bytes.subarray(position - piece.position, until - piece.position);
      await outlet.unlessLost(paced(control, part.byteLength, task.rate));
      if (control.giveUp) return false;
      // Said before the bytes go: once the peer has the last of them, it may close at any moment.
      if (record.kind === "main" && until === record.length) control.setTailSent();
      await outlet.send(part, position);
      position = until;
      control.setMoved(task.connection, position);
      gates.passed(position);
    }
  }
  return true;
}

/** Keeps a channel open until everything is delivered: a channel that closes early fails the whole load. */
async function seeThrough(task: FeedTask, control: ControlBlock, outlet: Outlet): Promise<void> {
  await outlet.delivered();
  if (task.record.kind === "main") return;
  control.addDelivered();
  await outlet.unlessLost(control.until(() => control.finished || control.giveUp));
  if (control.giveUp) await outlet.ended();
}
