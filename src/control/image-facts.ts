import type { ChannelRecord, ImageMetadata, Superblock } from "../formats/image/model.ts";
import type { ChannelName, ImageFacts } from "./events.ts";

/** The image as `completed` names it. */
export function imageFacts(
  path: string,
  { uuid, imageBytes }: Superblock,
  { machine, vmUuid, multifdChannels, compression }: ImageMetadata,
  directIo: boolean,
): ImageFacts {
  return {
    path,
    format: "stream",
    uuid,
    bytes: imageBytes,
    directIo,
    machine,
    vmUuid,
    multifdChannels,
    compression,
  };
}

/** The channel that a record of the index describes. */
export function nameOf(record: ChannelRecord): ChannelName {
  return record.kind === "main" ? "main" : record.id;
}

/** How messages name a channel. */
export function labelOf(channel: ChannelName): string {
  return channel === "main" ? "main channel" : `channel ${channel}`;
}
