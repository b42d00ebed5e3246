import type { ImageMetadata } from "../formats/image/model.ts";
import type { ChannelName } from "./events.ts";

/** A byte range of the file that restore reads. `offset` counts from the start of the file. */
export interface UsedRange {
  /** "superblock", "metadata", "index", "main" or "channel N". */
  readonly what: string;
  readonly offset: number;
  readonly length: number;
}

export interface ChannelReport {
  readonly channel: ChannelName;
  readonly bytes: number;
  readonly extents: number;
  /** Checksummed blocks, and how large they are. */
  readonly blocks: number;
  readonly blockBytes: number;
  /** SYNC packets, or barriers on main. */
  readonly syncs: number;
  readonly checksum: "crc32" | "none";
}

/** What the destination QEMU must be for this image. */
export interface DestinationNeeds {
  readonly machine: string | null;
  readonly multifd: boolean;
  readonly multifdChannels: number;
  readonly multifdCompression: string;
  /** null: none was set at the source, and none may be set at the destination. */
  readonly uuid: string | null;
  /** Validated capabilities that must be on there too, as at the source; x-ignore-shared means that shared RAM is not in the image. */
  readonly capabilities: readonly string[];
  /** True: start the destination with fresh RAM, or truncate its memory file to 0 and back before. */
  readonly zeroedRam: boolean;
}

export interface ImageReport {
  readonly path: string;
  readonly format: "stream";
  readonly formatVersion: number;
  readonly sealed: boolean;
  readonly imageUuid: string;
  /** ISO time. */
  readonly created: string;
  /** Where the image starts in the file. */
  readonly base: number;
  /** From the base to the image's end; null while unsealed. */
  readonly bytes: number | null;
  /** Bytes of all channels; null while unsealed. */
  readonly dataBytes: number | null;
  /** Null while unsealed. */
  readonly metadata: ImageMetadata | null;
  readonly destination: DestinationNeeds | null;
  readonly channels: readonly ChannelReport[];
  readonly ranges: readonly UsedRange[];
}

export interface VerifyReport {
  readonly path: string;
  /** "checksums and structure", or "structure only" for images without checksums. */
  readonly checked: "checksums and structure" | "structure only";
  readonly blocks: number;
  readonly bytes: number;
  readonly elapsedMs: number;
}
