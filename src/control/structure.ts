import { MultifdError } from "../errors.ts";
import type { ChannelRecord, ImageMetadata } from "../formats/image/model.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import { judgeCompleteness } from "../formats/migration/completeness.ts";
import type { ChannelSummary } from "../formats/migration/summary.ts";
import { destinationNeeds } from "./destination-needs.ts";
import { labelOf, nameOf } from "./image-facts.ts";
import { describe } from "./seal.ts";
import { sortStreams, waypoints } from "./streams.ts";

/**
 * Holds the streams, as they were walked again, against what index and metadata say of them: checksums prove
 * only that the image is as it was written.
 * @param summaries in the order of the index
 * @throws MultifdError IMAGE_DAMAGED
 */
export function checkStructure(image: OpenedImage, summaries: readonly ChannelSummary[]): void {
  for (const [number, record] of image.index.channels.entries()) {
    checkRecord(record, summaries[number] as ChannelSummary);
  }
  const streams = sortStreams(summaries);
  const { verdict, reasons } = judgeCompleteness(streams?.main ?? null, streams?.multifd ?? []);
  if (streams === null || verdict === "incomplete") {
    throw damage(`the image's streams are incomplete: ${reasons.join("; ")}`);
  }
  checkNeeds(image.metadata, describe(streams, image.metadata.evidence, {}));
}

function checkRecord(record: ChannelRecord, summary: ChannelSummary): void {
  const label = labelOf(nameOf(record));
  const id = summary.kind === "main" ? 0 : summary.id;
  if (summary.kind !== record.kind || id !== record.id) {
    throw damage(`${label} carries another channel's stream`);
  }
  const { marks, tail } = waypoints(summary);
  if (summary.bytes !== record.length || !sameNumbers(marks, record.marks)) {
    throw damage(`${label} has its SYNC points elsewhere than the index says`);
  }
  if (tail !== record.tail) throw damage(`${label} has its tail elsewhere than the index says`);
}

function sameNumbers(a: Float64Array, b: Float64Array): boolean {
  return a.length === b.length && a.every((value, at) => value === b[at]);
}

/** What a manager sets the destination up with: anything else there, and the guest would arrive wrong or not at all. */
function checkNeeds(stored: ImageMetadata, found: ImageMetadata): void {
  const needs = Object.entries(destinationNeeds(found));
  const said = new Map(Object.entries(destinationNeeds(stored)));
  for (const [name, value] of needs) {
    if (String(said.get(name)) === String(value)) continue;
    throw damage(`the image's metadata say ${name} ${said.get(name)}, but its streams say ${value}`);
  }
}

function damage(what: string): MultifdError {
  return new MultifdError("IMAGE_DAMAGED", `${what}: the image is damaged; use another copy or save again`);
}
