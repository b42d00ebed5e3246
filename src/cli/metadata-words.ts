import { namedUuid } from "../control/destination-needs.ts";
import type { ImageMetadata } from "../formats/image/model.ts";

const DECIDED = {
  structure: "decided by their structure",
  commit: "the manager committed it",
  qmp: "QEMU called the migration completed",
} as const;

/** On what evidence an image was sealed. */
export function describeEvidence(metadata: ImageMetadata | null): string {
  if (metadata === null) return "on unknown evidence";
  const { verdict, decidedBy, reasons } = metadata.evidence;
  const found = verdict === "complete" ? "the streams are complete" : "the streams do not prove completeness";
  const decided = DECIDED[decidedBy];
  return [`${found}; ${decided}`, ...reasons].join("; ");
}

/** QEMU sends zeros for a VM without a UUID. */
export function shownUuid({ vmUuid }: ImageMetadata): string {
  return (vmUuid === null ? null : namedUuid(vmUuid)) ?? "none";
}
