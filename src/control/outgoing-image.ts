import type { OpenedImage } from "../formats/image/open.ts";
import type { Source } from "../io/source.ts";
import { checkImage } from "./check-image.ts";
import { destinationNeeds } from "./destination-needs.ts";
import { checkExpectations } from "./expectations.ts";
import { planChecked } from "./mapped-ram/checked-plan.ts";
import { withRestorable } from "./opened-image.ts";
import type { RestoreOptions } from "./options.ts";
import type { OutgoingPlan } from "./outgoing.ts";
import { SILENT } from "./silent-log.ts";
import { planStreams } from "./stored-streams.ts";
import { teller } from "./telling.ts";

/**
 * Opens an image, checks it as far as the options ask, and has it sent: `send` gets what goes out.
 * @throws MultifdError what withRestorable throws; EXPECTATION_FAILED, VM_RAN_ON, QEMU_UNSUPPORTED, and what `send` throws
 */
export function withOutgoing<T>(
  options: RestoreOptions,
  send: (plan: OutgoingPlan) => Promise<T>,
): Promise<T> {
  return withRestorable(
    options,
    async (source, image) => send(await checkedStreams(source, image, options)),
    async (source, contents) => send(await planChecked(source, contents, options)),
  );
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
