import { Buffer } from "node:buffer";
import { damaged } from "../src/formats/image/damage.ts";
import type { MappedBlock } from "../src/formats/mapped-ram/model.ts";
import { packetRuns } from "../src/formats/mapped-ram/packet-runs.ts";
import {
  absentPages,
  bitmapOf,
  type Piece,
  piecesOf,
  type Stretch,
  stretchAt,
} from "../src/formats/mapped-ram/ranges.ts";
import { needsZeroPages } from "../src/formats/mapped-ram/synthesis.ts";
import { PacketWriter } from "../src/formats/migration/packet-writer.ts";
import { blockNameBytes, RecordWriter, ZERO_RECORD_BYTES } from "../src/formats/migration/record-writer.ts";
import { readAt, readSpan } from "../src/io/file-io.ts";
import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { checkedCopy } from "../src/pool/checked-copy.ts";
import { Lockstep } from "../src/pool/gates.ts";
import { alongLane, type Lane } from "../src/pool/lane.ts";
import type {
  Answer,
  ChannelPart,
  CheckedCopy,
  CheckedStep,
  Fed,
  MainPart,
  SynthesisTask,
} from "../src/pool/messages.ts";
import { StretchSums } from "../src/pool/page-sums.ts";

const arena = new SlabArena();

/** Pool task: makes up one channel of a migration out of a mapped-ram file, and feeds it to the destination. */
export function synthesise(task: SynthesisTask): Promise<Answer<Fed>> {
  const { part } = task;
  return answering(() =>
    part.kind === "main"
      ? alongLane(task, part.length, (lane) => sendMain(task, part, lane))
      : alongLane(task, null, (lane) => sendChannel(task, part, lane)),
  );
}

/** Answers false when the run was given up, as all of these do. */
async function sendMain(task: SynthesisTask, part: MainPart, lane: Lane): Promise<boolean> {
  const lockstep = new Lockstep(lane.control, task.multifdChannels);
  let barriers = 0;
  const take = (step: CheckedStep): Promise<boolean> => {
    switch (step.kind) {
      case "bytes":
        return lane.send([step.bytes]);
      case "copied":
        return copy(task.fd, step, lane);
      case "barrier":
        return lane.unlessLost(lockstep.syncsSent(++barriers));
      case "pages":
        return sendAllRecords(task, part, lane);
      case "tail":
        return lane.unlessLost(lockstep.allDelivered());
    }
  };
  for (const step of part.steps) if (!(await take(step))) return false;
  return true;
}

async function copy(fd: number, step: CheckedCopy, lane: Lane): Promise<boolean> {
  for await (const bytes of checkedCopy(fd, step)) if (!(await lane.send([bytes]))) return false;
  return true;
}

/** Before the barrier behind them: a bit that was lost would make a zero page of one that a channel sends. */
async function sendAllRecords(task: SynthesisTask, part: MainPart, lane: Lane): Promise<boolean> {
  const from = lane.position;
  if (!(await sendRecords(task, part, lane))) return false;
  if (lane.position - from === part.recordBytes) return true;
  throw damaged("the bitmaps of the RAM blocks", "they are not what they were when the restore began");
}

/** Main's part of RAM: zero pages, and without multifd all the others as well. */
async function sendRecords(task: SynthesisTask, part: MainPart, lane: Lane): Promise<boolean> {
  const { blocks, multifdChannels } = task;
  const records = new RecordWriter();
  return await withSlots(task, async (slots) => {
    for (let number = 0; ; number++) {
      const stretch = stretchAt(blocks, number);
      if (stretch === null) return true;
      const block = blocks[stretch.block] as MappedBlock;
      const zeros = needsZeroPages(block, part.zeroedRam);
      if (!zeros && multifdChannels > 0) continue;
      const bits = await bitmap(task, stretch);
      if (zeros && !(await lane.send([zeroRecords(records, block, stretch, bits)]))) return false;
      if (multifdChannels > 0) continue;
      const send = (piece: Piece, bytes: Uint8Array): Promise<boolean> =>
        lane.send(pageRecords(records, block, piece, bytes));
      if (!(await eachPiece(task, stretch, bits, slots, send))) return false;
    }
  });
}

function zeroRecords(
  records: RecordWriter,
  block: MappedBlock,
  stretch: Stretch,
  bits: Uint8Array,
): Uint8Array {
  const pages = stretch.length / block.pageSize;
  const buffer = Buffer.allocUnsafe(blockNameBytes(block.name) + pages * ZERO_RECORD_BYTES);
  let at = 0;
  for (const address of absentPages(block, stretch, bits)) at = records.zero(buffer, at, block.name, address);
  return buffer.subarray(0, at);
}

/** The data stays where it was read to. */
function pageRecords(
  records: RecordWriter,
  block: MappedBlock,
  piece: Piece,
  bytes: Uint8Array,
): Uint8Array[] {
  const parts: Uint8Array[] = [];
  for (const { start, end } of piece.ranges.flatMap(({ runs }) => runs)) {
    for (let address = start; address < end; address += block.pageSize) {
      const head = Buffer.allocUnsafe(8 + blockNameBytes(block.name));
      parts.push(head.subarray(0, records.page(head, 0, block.name, address)));
      parts.push(bytes.subarray(address - piece.start, address - piece.start + block.pageSize));
    }
  }
  return parts;
}

/** Takes stretches of RAM that no other channel has, as long as there are any. */
async function sendChannel(task: SynthesisTask, part: ChannelPart, lane: Lane): Promise<boolean> {
  const { blocks, connection, multifdChannels } = task;
  const { control } = lane;
  const packets = new PacketWriter(part.id, multifdChannels);
  const sync = async (number: number): Promise<boolean> => {
    if (!(await lane.send([packets.sync()]))) return false;
    control.setSyncsSent(connection, number);
    return true;
  };
  if (!(await sync(1))) return false;
  const sent = await withSlots(task, async (slots) => {
    for (;;) {
      const stretch = stretchAt(blocks, control.claim(1));
      if (stretch === null) return true;
      const block = blocks[stretch.block] as MappedBlock;
      const bits = await bitmap(task, stretch);
      const send = (piece: Piece, bytes: Uint8Array): Promise<boolean> =>
        sendPackets(lane, packets, block, piece, bytes);
      if (!(await eachPiece(task, stretch, bits, slots, send))) return false;
    }
  });
  if (!sent) return false;
  for (let number = 2; number <= part.syncs; number++) if (!(await sync(number))) return false;
  return true;
}

/** The data of pages stays where it was read to: a part for each run of them. */
function sendPackets(
  lane: Lane,
  packets: PacketWriter,
  block: MappedBlock,
  piece: Piece,
  bytes: Uint8Array,
): Promise<boolean> {
  const parts: Uint8Array[] = [];
  for (const runs of packetRuns(piece)) {
    parts.push(packets.pages(block.name, runs));
    for (const { start, end } of runs) parts.push(bytes.subarray(start - piece.start, end - piece.start));
  }
  return lane.send(parts);
}

/** Reads the pages of a stretch ahead and hands each piece on once all its ranges have been checked. */
async function eachPiece(
  { fd, blocks, sumsOffset, ring }: SynthesisTask,
  stretch: Stretch,
  bits: Uint8Array,
  slots: readonly Uint8Array[],
  send: (piece: Piece, bytes: Uint8Array) => Promise<boolean>,
): Promise<boolean> {
  const sums = sumsOffset === null ? null : await StretchSums.read(fd, sumsOffset, blocks, stretch);
  const pieces = piecesOf(blocks[stretch.block] as MappedBlock, stretch, bits, ring.blockBytes);
  const read = (into: Uint8Array, { offset, length }: Piece): Promise<void> =>
    readAt(fd, into.subarray(0, length), offset);
  for await (const { piece, bytes } of readAhead(pieces, slots, read)) {
    if (sums !== null) for (const range of piece.ranges) sums.check(range, piece, bytes);
    if (!(await send(piece, bytes))) return false;
  }
  sums?.finish();
  return true;
}

function bitmap({ fd, blocks }: SynthesisTask, stretch: Stretch): Promise<Uint8Array> {
  const { offset, length } = bitmapOf(blocks[stretch.block] as MappedBlock, stretch);
  return readSpan(fd, offset, length);
}

async function withSlots<T>(
  { ring }: SynthesisTask,
  work: (slots: readonly Uint8Array[]) => Promise<T>,
): Promise<T> {
  const slots = Array.from({ length: ring.slots }, () => arena.take(ring.blockBytes));
  try {
    return await work(slots);
  } finally {
    arena.give(slots);
  }
}
