import { PAGE_RECORD_BYTES, RecordWriter } from "../../formats/migration/record-writer.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import { readAt } from "../../io/file-io.ts";
import { SlabArena } from "../../io/slab-arena.ts";
import { ControlBlock } from "../control-block.ts";
import type { PagingTask, ReadPart } from "../messages.ts";
import { PageMap } from "./page-map.ts";
import { Slots, WINDOW_BYTES, type Window } from "./slots.ts";

const arena = new SlabArena();

/**
 * Reads and checks what is assigned to its slots, all of them side by side, until the run is over.
 * @throws MultifdError IMAGE_DAMAGED, IO
 */
export async function readWindows(task: PagingTask, { slots, first, count }: ReadPart): Promise<void> {
  const control = new ControlBlock(task.control);
  const shared = new Slots(slots.count, slots.memory);
  const map = new PageMap(task.blocks, task.pages);
  const over = (): boolean => control.finished || control.giveUp;
  const fill = async (slot: number): Promise<void> => {
    const raw = arena.take(WINDOW_BYTES);
    try {
      for (;;) {
        await control.until(() => shared.isAssigned(slot) || over());
        if (over()) return;
        await readWindow(task.fd, map, shared.window(slot), raw, shared.records(slot));
        shared.setReady(slot);
        control.ring();
      }
    } finally {
      arena.give([raw]);
    }
  };
  await Promise.all(Array.from({ length: count }, (_, number) => fill(first + number)));
}

/** Lays the pages of a window out as records, in ascending order. */
async function readWindow(
  fd: number,
  map: PageMap,
  { block, start, length }: Window,
  raw: Uint8Array,
  records: Buffer,
): Promise<void> {
  const { name } = map.block(block);
  const writer = new RecordWriter();
  // The first record of a block names it; these all continue one that does.
  writer.page(Buffer.alloc(PAGE_RECORD_BYTES), 0, name, 0);
  let at = 0;
  for (const piece of map.piecesIn(block, start, length)) {
    const bytes = raw.subarray(0, piece.length);
    await readAt(fd, bytes, piece.offset);
    map.check(block, piece, bytes);
    for (const { runs } of piece.ranges) {
      for (const run of runs) {
        for (let page = run.start; page < run.end; page += PAGE_SIZE) {
          at = writer.page(records, at, name, page);
          records.set(bytes.subarray(page - piece.start, page - piece.start + PAGE_SIZE), at);
          at += PAGE_SIZE;
        }
      }
    }
  }
}
