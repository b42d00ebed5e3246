import fs from "node:fs";
import path from "node:path";
import { type ErrorCode, MultifdError } from "../../errors.ts";
import { damaged } from "../../formats/image/damage.ts";
import { privateDirectory } from "../../io/private-directory.ts";
import { Lazy } from "../../lazy.ts";
import { RunPool, threadCount } from "../../pool/run-pool.ts";
import type { RunEvent } from "../events.ts";
import { feedPlan } from "../feed-run.ts";
import type { RunOptions } from "../options.ts";
import type { OutgoingPlan } from "../outgoing.ts";
import { teller } from "../telling.ts";

const OF_THE_STREAM: ReadonlySet<ErrorCode> = new Set([
  "PROTOCOL",
  "TLS_PEER",
  "CHANNEL_SET",
  "STREAM_INCOMPLETE",
]);

/** The side that takes the channels in. */
export interface Intake {
  /** Where it is to listen. */
  readonly listen: string;
  /** Ends it; the reason is the error. */
  readonly signal: AbortSignal;
  /** To be told everything. */
  readonly onEvent: (event: RunEvent) => void;
}

/**
 * Moves a migration from one place to another within this process: what a restore would send to QEMU goes over a socket
 * of our own to what a save would take from one. So all that holds for both holds here, too. Tells progress of the sending
 * side, which knows how much there is.
 * @throws MultifdError the reason of the side that failed first; IMAGE_DAMAGED where that is what was sent
 */
export async function transfer<T>(
  options: Pick<RunOptions, "image" | "workers" | "signal" | "onEvent" | "log">,
  plan: OutgoingPlan,
  take: (intake: Intake) => Promise<T>,
): Promise<T> {
  const directory = privateDirectory("transfer");
  const failing = new AbortController();
  const signal = AbortSignal.any([failing.signal, ...(options.signal === undefined ? [] : [options.signal])]);
  const tell = teller(options);
  const failed = (error: unknown): never => {
    failing.abort(error);
    throw error;
  };
  const removeDirectory = (): void => fs.rmSync(directory, { recursive: true, force: true });
  // Nobody needs the socket's name any more then, and a SIGKILL leaves nothing behind.
  const whenConnected = countdown(plan.channels.length, removeDirectory);
  let feeding: Promise<unknown> = Promise.resolve();
  const pool = new Lazy(() => new RunPool(plan.code, threadCount(options.workers, plan.channels.length)));
  const feed = (connect: string): Promise<unknown> =>
    feedPlan(
      {
        ...{ connect, signal, workers: options.workers, log: options.log },
        onEvent: (event) => {
          if (event.event === "channel") whenConnected();
          if (event.event === "progress") tell(event);
        },
      },
      plan,
      pool.get(),
    ).catch((error: unknown) => (isConsequence(error) ? Promise.reject(error) : failed(error)));
  try {
    const taking = take({
      listen: `unix:${path.join(directory, "s")}`,
      signal,
      onEvent: (event) => {
        if (event.event === "listening") feeding = feed(event.address);
        // Looked at below.
        feeding.catch(() => undefined);
      },
    }).catch(failed);
    const [taken] = await Promise.allSettled([taking]);
    const [fed] = await Promise.allSettled([feeding]);
    if (taken.status === "fulfilled") return taken.value;
    // A sender that gives up ends main first, which looks like a migration that was cut.
    const cut = codeOf(taken.reason) === "STREAM_INCOMPLETE";
    if (cut && fed.status === "rejected" && !isConsequence(fed.reason)) throw fed.reason;
    throw asDamage(taken.reason);
  } finally {
    removeDirectory();
    await pool.got?.close();
  }
}

/** To be called so many times; the last call does the work. */
function countdown(times: number, work: () => void): () => void {
  let left = times;
  return () => {
    left--;
    if (left === 0) work();
  };
}

/** The other side went away: it says why. */
function isConsequence(error: unknown): boolean {
  return codeOf(error) === "DESTINATION_CLOSED" || codeOf(error) === "CONNECT_FAILED";
}

/** What is wrong with a stream that lies in a file is damage, not a peer's fault. */
function asDamage(error: unknown): unknown {
  if (!(error instanceof MultifdError) || !OF_THE_STREAM.has(error.code)) return error;
  return damaged("its streams", error.message, error.details, error);
}

function codeOf(error: unknown): string | null {
  return error instanceof MultifdError ? error.code : null;
}
