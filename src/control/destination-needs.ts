import type { ImageMetadata } from "../formats/image/model.ts";
import type { DestinationNeeds } from "./reports.ts";

export const NO_UUID = "00000000-0000-0000-0000-000000000000";

/** What QEMU must be started and set up with to take this image. */
export function destinationNeeds(metadata: ImageMetadata): DestinationNeeds {
  return {
    machine: metadata.machine,
    multifd: metadata.multifdChannels > 0,
    multifdChannels: metadata.multifdChannels,
    multifdCompression: metadata.compression ?? "none",
    uuid: metadata.vmUuid === null ? null : namedUuid(metadata.vmUuid),
    capabilities: metadata.capabilities,
    zeroedRam: metadata.needsZeroedRam,
  };
}

/** A UUID in lower case; null for what QEMU sends for a VM without one. */
export function namedUuid(uuid: string): string | null {
  const lower = uuid.toLowerCase();
  return lower === NO_UUID || lower === "none" ? null : lower;
}
