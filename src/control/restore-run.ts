import { parseAddress } from "../channels/address.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import type { Source } from "../io/source.ts";
import type { WorkerCode } from "../pool/worker-code.ts";
import { throwIfAborted } from "./cancellation.ts";
import { checkImage } from "./check-image.ts";
import type { CompletedEvent } from "./events.ts";
import { checkExpectations } from "./expectations.ts";
import { feedPlan } from "./feed-run.ts";
import { destinationNeeds } from "./inspect.ts";
import { refuseRanOn, reportMark } from "./instant/ran-on.ts";
import type { MappedContents } from "./mapped-ram/contents.ts";
import { planMapped } from "./mapped-ram/outgoing.ts";
import { findMark } from "./mapped-ram/resumed.ts";
import { checkBeforehand } from "./mapped-ram/verify.ts";
import { withRestorable } from "./opened-image.ts";
import type { RestoreOptions } from "./options.ts";
import type { OutgoingPlan } from "./outgoing.ts";
import { SILENT } from "./silent-log.ts";
import { planStreams } from "./stored-streams.ts";
import { teller } from "./telling.ts";
import { checkRestoreOptions } from "./validate.ts";

/**
 * One restore: everything that can be checked is checked before the first connection.
 * @param code another feed lets tests put faults below the data path
 */
export async function runRestore(options: RestoreOptions, code?: WorkerCode): Promise<CompletedEvent> {
  checkRestoreOptions(options);
  // An address that is none is said before a whole image is read.
  parseAddress(options.connect);
  throwIfAborted(options.signal);
  const send = (plan: OutgoingPlan): Promise<CompletedEvent> => feedPlan(options, plan, code);
  const completed = await withRestorable(
    options,
    async (source, image) => send(await checkedStreams(source, image, options)),
    async (source, contents) => send(await checkedPages(source, contents, options)),
  );
  teller(options)(completed);
  return completed;
}

async function checkedStreams(
  source: Source,
  image: OpenedImage,
  options: RestoreOptions,
): Promise<OutgoingPlan> {
  const { channels, expect, log = SILENT } = options;
  const expected = channels === undefined ? expect : { ...expect, channels };
  checkExpectations(destinationNeeds(image.metadata), { ...options, expect: expected }, log);
  if (options.verify === "first") {
    teller(options)({ event: "verified", ...(await checkImage(options, source, image)) });
  }
  return await planStreams(source, image, options);
}

async function checkedPages(
  source: Source,
  contents: MappedContents,
  options: RestoreOptions,
): Promise<OutgoingPlan> {
  const { stream, uuid } = contents;
  refuseRanOn(reportMark(await findMark(source.fd, contents)), options);
  checkExpectations({ machine: stream.machine, uuid, multifdChannels: null }, options, options.log ?? SILENT);
  const plan = await planMapped(source, contents, options);
  await checkBeforehand(options, source.fd, contents);
  return plan;
}
