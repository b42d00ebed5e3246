import { availableParallelism } from "node:os";
import type { MappedBlock } from "../../formats/mapped-ram/model.ts";
import { ControlBlock } from "../../pool/control-block.ts";
import type { PagesRead, PagesTask, PagesWork } from "../../pool/messages.ts";
import { PAGES } from "../../pool/worker-code.ts";
import { Meter } from "../meter.ts";
import type { RunOptions } from "../options.ts";
import { readInParallel } from "../reading-run.ts";

/** Two for each thread, so that one reads while the other one's bitmap is on its way. */
const TASKS_PER_THREAD = 2;
const MOST_TASKS = 32;

/**
 * Goes over all pages of a mapped-ram file in parallel; tells progress.
 * @param presentPages of each block, for the progress
 * @returns how many checksummed ranges have pages, and the bytes of all pages
 * @throws MultifdError IMAGE_DAMAGED or IO with the place of the first damage found, CANCELLED
 */
export async function readPages(
  options: RunOptions,
  fd: number,
  blocks: readonly MappedBlock[],
  presentPages: readonly number[],
  work: PagesWork,
): Promise<{ ranges: number; bytes: number }> {
  const meter = new Meter();
  const control = new ControlBlock();
  const bytes = blocks.reduce((sum, { pageSize }, n) => sum + pageSize * (presentPages[n] ?? 0), 0);
  const threads = options.workers ?? availableParallelism();
  const tasks = Array.from(
    { length: Math.min(MOST_TASKS, threads * TASKS_PER_THREAD) },
    (_, connection): PagesTask => {
      return { connection, fd, control: control.memory, blocks, work };
    },
  );
  const progress = () => {
    const moved = tasks.reduce((sum, { connection }) => sum + control.moved(connection), 0);
    return meter.sample([{ channel: "main", bytes: moved }], bytes);
  };
  const read = await readInParallel<PagesRead>(options, PAGES, control, tasks, progress);
  return { ranges: read.reduce((sum, one) => sum + one.ranges, 0), bytes };
}
