import { setTimeout as sleep } from "node:timers/promises";
import { answering } from "../../../src/pool/answer.ts";
import { readBlock } from "../../../src/pool/block-reader.ts";
import type { Answer, Fed, FeedTask } from "../../../src/pool/messages.ts";
import { feedChannel, type ReadBlock } from "../../../workers/feed.ts";

/** The product's feed over a disk that takes between 0 and 12 ms for a read, and finishes them in any order. */
export function feed(task: FeedTask): Promise<Answer<Fed>> {
  return answering(() => feedChannel(task, delayed));
}

const delayed: ReadBlock = async (image, block, slot, checksums) => {
  await sleep(Math.random() * 12);
  await readBlock(image, block, slot, checksums);
};
