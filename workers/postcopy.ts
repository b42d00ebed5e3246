import { answering } from "../src/pool/answer.ts";
import type { Answer, PagingTask } from "../src/pool/messages.ts";
import { readWindows } from "../src/pool/paging/read-windows.ts";
import { servePages } from "../src/pool/paging/serve-pages.ts";

/** Pool task of an instant restore: serves the destination's connection, or reads and checks pages for it. */
export function postcopy(task: PagingTask): Promise<Answer<null>> {
  return answering(async () => {
    if (task.part.kind === "serve") await servePages(task, task.part);
    else await readWindows(task, task.part);
    return null;
  });
}
