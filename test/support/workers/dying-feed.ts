import { answering } from "../../../src/pool/answer.ts";
import { readBlock } from "../../../src/pool/block-reader.ts";
import type { Answer, Fed, FeedTask } from "../../../src/pool/messages.ts";
import { feedChannel } from "../../../workers/feed.ts";

/** When a worker dies: at the first block of this connection that lies at or behind `position`. */
export interface Death {
  readonly connection: number;
  readonly position: number;
  /** "exit" ends the thread; "throw" is an exception that nobody catches. */
  readonly how: "exit" | "throw";
}

/** The feed task in a worker that dies as the environment variable DYING_FEED says. */
export function feed(task: FeedTask): Promise<Answer<Fed>> {
  const death = JSON.parse(process.env.DYING_FEED ?? "null") as Death | null;
  return answering(() =>
    feedChannel(task, async (image, block, slot, checksums) => {
      await readBlock(image, block, slot, checksums);
      if (death?.connection === task.connection && block.position >= death.position) die(death.how);
    }),
  );
}

function die(how: Death["how"]): void {
  if (how === "exit") process.exit(9);
  setImmediate(() => {
    throw new Error("a worker that was told to die");
  });
}
