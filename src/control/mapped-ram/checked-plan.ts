import type { Source } from "../../io/source.ts";
import { checkExpectations } from "../expectations.ts";
import { refuseRanOn, reportMark } from "../instant/ran-on.ts";
import type { RestoreOptions } from "../options.ts";
import type { OutgoingPlan } from "../outgoing.ts";
import { SILENT } from "../silent-log.ts";
import type { MappedContents } from "./contents.ts";
import { planMapped } from "./outgoing.ts";
import { findMark } from "./resumed.ts";
import { checkBeforehand } from "./verify.ts";

/**
 * What a restore sends of a mapped-ram image, once it was checked as far as the options ask.
 * @throws MultifdError VM_RAN_ON, EXPECTATION_FAILED, and what planMapped and checkBeforehand throw
 */
export async function planChecked(
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
