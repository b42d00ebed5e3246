import { MultifdError } from "../errors.ts";
import type { SealEvidence } from "../formats/image/model.ts";
import { judgeCompleteness } from "../formats/migration/completeness.ts";
import type { TakenIn } from "../pool/messages.ts";
import { cancelled } from "./cancellation.ts";
import type { DrainedEvent } from "./events.ts";
import type { Meter } from "./meter.ts";
import type { SaveOptions } from "./options.ts";
import { drainedFigures, type Streams, sortStreams } from "./streams.ts";
import { teller } from "./telling.ts";

export interface Decision {
  readonly streams: Streams;
  readonly evidence: SealEvidence;
}

/**
 * Decides whether what was drained becomes an image. An incomplete stream never does. A complete one does by itself,
 * or under hold when the manager says commit: a migration that was cancelled after its last byte looks complete too.
 */
export async function decide(
  drained: readonly TakenIn[],
  meter: Meter,
  options: SaveOptions,
): Promise<Decision> {
  const streams = sortStreams(drained.map((one) => one.summary));
  const judgement = judgeCompleteness(
    streams?.main ?? null,
    streams?.multifd ?? [],
    options.channels ?? null,
  );
  const { verdict, reasons } = judgement;
  if (streams === null || verdict === "incomplete") {
    const text = `the migration stream is incomplete, so no image was made: ${reasons.join("; ")}`;
    throw new MultifdError("STREAM_INCOMPLETE", text, {});
  }
  if (options.confirm === undefined) {
    if (verdict === "complete" || judgement.sealable) {
      return { streams, evidence: { verdict, decidedBy: "structure", reasons } };
    }
    const text = `nothing in the stream proves that it is complete, so nothing was saved: ${reasons.join("; ")}; use --hold and answer commit when QEMU says completed`;
    throw new MultifdError("STREAM_UNDECIDED", text, {});
  }
  const channels = drainedFigures(drained);
  const bytes = channels.reduce((sum, channel) => sum + channel.bytes, 0);
  const question: DrainedEvent = {
    event: "drained",
    bytes,
    elapsedMs: meter.elapsedMs,
    evidence: { verdict, reasons },
    channels,
  };
  teller(options)(question);
  // Anything but a clear yes is a no: what is kept by mistake may be the image of a migration that was cancelled.
  if ((await answer(question, options)) !== "commit") {
    throw new MultifdError("ABORTED", "the manager called the migration off, so nothing was saved", {});
  }
  const decidedBy = options.describeVm === undefined ? "commit" : "qmp";
  return { streams, evidence: { verdict, decidedBy, reasons } };
}

function answer(question: DrainedEvent, options: SaveOptions): Promise<"commit" | "abort"> {
  const signal = options.signal ?? new AbortController().signal;
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(cancelled(signal));
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort, { once: true });
    options
      .confirm?.(question, signal)
      .then(resolve, reject)
      .finally(() => signal.removeEventListener("abort", abort));
  });
}
