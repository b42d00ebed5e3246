import { MultifdError } from "../src/errors.ts";
import type { MappedBlock } from "../src/formats/mapped-ram/model.ts";
import {
  bitmapOf,
  PIECE_BYTES,
  type Piece,
  piecesOf,
  type Range,
  type Stretch,
  stretchAt,
} from "../src/formats/mapped-ram/ranges.ts";
import { readAt, readSpan } from "../src/io/file-io.ts";
import { nextHole } from "../src/io/libc.ts";
import { readAhead } from "../src/io/read-ahead.ts";
import { SlabArena } from "../src/io/slab-arena.ts";
import { answering } from "../src/pool/answer.ts";
import { ControlBlock } from "../src/pool/control-block.ts";
import type { Answer, PagesRead, PagesTask } from "../src/pool/messages.ts";
import { rangeSum, rangesBefore, StretchSums } from "../src/pool/page-sums.ts";

const SLOTS = 3;
const arena = new SlabArena();

/** Pool task: reads pages of a mapped-ram file, to take their checksums, to compare them, or to see that they are there. */
export function pages(task: PagesTask): Promise<Answer<PagesRead>> {
  return answering(() => readStretches(task));
}

async function readStretches(task: PagesTask): Promise<PagesRead> {
  const control = new ControlBlock(task.control);
  const slots = Array.from({ length: SLOTS }, () => arena.take(PIECE_BYTES));
  let ranges = 0;
  let moved = 0;
  try {
    while (!control.giveUp) {
      const stretch = stretchAt(task.blocks, control.claim(1));
      if (stretch === null) break;
      const block = task.blocks[stretch.block] as MappedBlock;
      const place = bitmapOf(block, stretch);
      const pieces = piecesOf(block, stretch, await readSpan(task.fd, place.offset, place.length));
      const { take, finish } = await rangeTaker(task, stretch);
      for await (const { piece, bytes } of readPieces(task, block, pieces, slots)) {
        if (control.giveUp) break;
        if (bytes !== null) for (const range of piece.ranges) take(range, piece, bytes);
        ranges += piece.ranges.length;
        for (const { runs } of piece.ranges) for (const run of runs) moved += run.end - run.start;
        control.setMoved(task.connection, moved);
      }
      if (!control.giveUp) finish();
    }
    return { ranges };
  } finally {
    arena.give(slots);
  }
}

/** The pieces one by one, with their bytes where these are wanted. */
async function* readPieces(
  { fd, work }: PagesTask,
  block: MappedBlock,
  pieces: Iterable<Piece>,
  slots: readonly Uint8Array[],
): AsyncGenerator<{ piece: Piece; bytes: Uint8Array | null }, void, undefined> {
  if (work.kind === "holes") {
    for (const piece of pieces) {
      expectNoHoles(fd, block, piece, work.saving);
      yield { piece, bytes: null };
    }
    return;
  }
  yield* readAhead(pieces, slots, (into, piece) => {
    if (work.kind === "sum") expectNoHoles(fd, block, piece, true);
    return readAt(fd, into.subarray(0, piece.length), piece.offset);
  });
}

/** What is to be done with each range of a stretch that has pages, and then. */
interface RangeTaker {
  take(range: Range, piece: Piece, bytes: Uint8Array): void;
  finish(): void;
}

async function rangeTaker({ fd, work, blocks }: PagesTask, stretch: Stretch): Promise<RangeTaker> {
  const nothing = (): void => undefined;
  switch (work.kind) {
    case "holes":
      return { take: nothing, finish: nothing };
    case "sum": {
      const before = rangesBefore(blocks, stretch.block);
      const table = new DataView(work.sums);
      const take: RangeTaker["take"] = (range, piece, bytes) =>
        table.setUint32(4 * (before + range.number), rangeSum(range, piece, bytes));
      return { take, finish: nothing };
    }
    case "compare": {
      const sums = await StretchSums.read(fd, work.sumsOffset, blocks, stretch);
      return { take: (...range) => sums.check(...range), finish: () => sums.finish() };
    }
  }
}

/** QEMU counts a write that came short as done (qio_channel_pwritev, 10.0.2): what is missing shows as a hole. */
function expectNoHoles(fd: number, block: MappedBlock, { ranges }: Piece, saving: boolean): void {
  let dataEnd = 0;
  for (const { start, end } of ranges.flatMap(({ runs }) => runs)) {
    const [from, to] = [block.pagesOffset + start, block.pagesOffset + end];
    if (dataEnd < to) dataEnd = nextHole(fd, from);
    if (dataEnd < to) throw hole(block, dataEnd, saving);
  }
}

function hole(block: MappedBlock, offset: number, saving: boolean): MultifdError {
  const position = offset - block.pagesOffset;
  const where = `the page at ${position} of RAM block "${block.name}" was never written (file offset ${offset} lies in a hole)`;
  const details = { offset, block: block.name, position };
  return saving
    ? new MultifdError(
        "IO",
        `QEMU reported success, but ${where}: a write came short; look after the disk's space and save again`,
        details,
      )
    : new MultifdError(
        "IMAGE_DAMAGED",
        `the image is damaged: ${where}; use another copy of the image`,
        details,
      );
}
