import { setTimeout as sleep } from "node:timers/promises";
import { type WriteAt, writeAt } from "../../../src/io/file-io.ts";
import { answering } from "../../../src/pool/answer.ts";
import type { Answer, Drained, DrainTask } from "../../../src/pool/messages.ts";
import { drainChannel } from "../../../workers/drain.ts";
import { NaiveRing } from "../naive-ring.ts";

/** The product's drain over a disk that takes between 0 and 12 ms for a write, and finishes them in any order. */
export function drain(task: DrainTask): Promise<Answer<Drained>> {
  return answering(() => drainChannel(task, delayed));
}

const delayed: WriteAt = async (fd, data, position) => {
  await sleep(Math.random() * 12);
  await writeAt(fd, data, position);
};

/** The same disk behind the ring that anybody would write first, of two slots, which run out all the time: what it saves is damaged. */
export function drainNaively(task: DrainTask): Promise<Answer<Drained>> {
  return answering(() =>
    drainChannel(
      task,
      delayed,
      (slots, submit, onSpare) => new NaiveRing(slots.slice(0, 2), submit, onSpare),
    ),
  );
}
