import { parseAddress } from "../channels/address.ts";
import { RunPool, threadCount } from "../pool/run-pool.ts";
import { FEED, type WorkerCode } from "../pool/worker-code.ts";
import { throwIfAborted } from "./cancellation.ts";
import type { CompletedEvent } from "./events.ts";
import { feedPlan } from "./feed-run.ts";
import type { RestoreOptions } from "./options.ts";
import { withOutgoing } from "./outgoing-image.ts";
import { teller } from "./telling.ts";
import { checkRestoreOptions } from "./validate.ts";

/** Main and a channel: as many connections as nearly every image has. */
const LEAST_CONNECTIONS = 2;

/**
 * One restore: everything that can be checked is checked before the first connection. Threads take longest to be there, so
 * that the first of them begin before anybody knows what is in the image.
 * @param code another feed lets tests put faults below the data path
 */
export async function runRestore(options: RestoreOptions, code?: WorkerCode): Promise<CompletedEvent> {
  checkRestoreOptions(options);
  // An address that is none is said before a whole image is read.
  parseAddress(options.connect);
  throwIfAborted(options.signal);
  // With "first", other threads read the whole image before these have anything to do.
  const early = options.verify === "first" ? 0 : threadCount(options.workers, LEAST_CONNECTIONS);
  const pool = new RunPool(code ?? FEED, early, true);
  try {
    const completed = await withOutgoing(options, async (plan) => {
      try {
        return await feedPlan(options, { ...plan, code: code ?? plan.code }, pool);
      } finally {
        // No task may read on when the image is closed.
        await pool.close();
      }
    });
    teller(options)(completed);
    return completed;
  } finally {
    await pool.close();
  }
}
