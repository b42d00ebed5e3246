import { setTimeout as sleep } from "node:timers/promises";
import { type WriteAt, writeAt } from "../../../src/io/file-io.ts";
import { answering } from "../../../src/pool/answer.ts";
import type { Answer, Placed, PlaceTask } from "../../../src/pool/messages.ts";
import { placeChannel } from "../../../workers/place.ts";

/** The product's placing over a disk that takes between 0 and 12 ms for a write, and finishes them in any order. */
export function place(task: PlaceTask): Promise<Answer<Placed>> {
  return answering(() => placeChannel(task, DELAYED));
}

/** The same, but no connection waits for another one. */
export function placeWithoutBarriers(task: PlaceTask): Promise<Answer<Placed>> {
  return answering(() => placeChannel(task, DELAYED, () => ({ arriveAt: () => Promise.resolve() })));
}

const delayed: WriteAt = async (fd, data, position) => {
  await sleep(Math.random() * 12);
  await writeAt(fd, data, position);
};

const DELAYED = { write: delayed, cachesShortRuns: false };
