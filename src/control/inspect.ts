import { blockCount } from "../formats/image/blocks.ts";
import { extentCount } from "../formats/image/extents.ts";
import { usedRanges } from "../formats/image/layout.ts";
import { type ChannelRecord, SUPERBLOCK_BYTES, type Superblock } from "../formats/image/model.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import { decodeSuperblock, FORMAT_VERSION } from "../formats/image/superblock.ts";
import type { Source } from "../io/source.ts";
import { destinationNeeds } from "./destination-needs.ts";
import { kindOfFile } from "./foreign/kind.ts";
import { inspectLibvirt } from "./foreign/libvirt.ts";
import { inspectQemuStream } from "./foreign/qemu-stream.ts";
import { namingImage } from "./image-errors.ts";
import { inspectMapped } from "./mapped-ram/report.ts";
import { openFile, readSealed } from "./opened-image.ts";
import type { InspectOptions } from "./options.ts";
import type { ChannelReport, ImageReport, StreamImageReport } from "./reports.ts";
import { SILENT } from "./silent-log.ts";
import { checkInspectOptions } from "./validate.ts";

/**
 * Says what an image is, from its superblock, metadata and index; the channels' data is not read. A migration stream as
 * QEMU sent it, in a file of its own or in an image of libvirt, has no index: it is read to its end.
 * @throws MultifdError NOT_AN_IMAGE, IMAGE_DAMAGED, UNSUPPORTED_VERSION, IO; an unsealed image is described, not thrown
 */
export async function inspect(options: InspectOptions): Promise<ImageReport> {
  checkInspectOptions(options);
  const { image, offset = 0 } = options;
  return namingImage(image, async () => {
    const { source, head } = await openFile(image, offset, "off", SILENT);
    try {
      switch (await kindOfFile(source, head)) {
        case "libvirt":
          return await inspectLibvirt(options, source, head);
        case "qemu-stream":
          return await inspectQemuStream(options, source);
        case "mapped-ram":
          return await inspectMapped(image, source);
        case "stream":
          return await inspectStreams(image, source, head);
      }
    } finally {
      source.close();
    }
  });
}

async function inspectStreams(path: string, source: Source, head: Uint8Array): Promise<StreamImageReport> {
  const superblock = decodeSuperblock(head);
  const opened = superblock.state === "sealed" ? await readSealed(source, superblock) : null;
  return report(path, source.base, superblock, opened);
}

function report(
  path: string,
  base: number,
  superblock: Superblock,
  opened: OpenedImage | null,
): StreamImageReport {
  const channels = opened?.index.channels ?? [];
  const ranges =
    opened === null
      ? [{ what: "superblock" as const, offset: base, length: SUPERBLOCK_BYTES }]
      : usedRanges(superblock, opened.index, base);
  return {
    path,
    format: "stream",
    formatVersion: FORMAT_VERSION,
    sealed: opened !== null,
    imageUuid: superblock.uuid,
    created: new Date(superblock.createdMs).toISOString(),
    base,
    bytes: opened === null ? null : superblock.imageBytes,
    dataBytes: opened === null ? null : channels.reduce((sum, channel) => sum + channel.length, 0),
    metadata: opened?.metadata ?? null,
    destination: opened === null ? null : destinationNeeds(opened.metadata),
    channels: channels.map(channelReport),
    ranges,
  };
}

function channelReport(record: ChannelRecord): ChannelReport {
  return {
    channel: record.kind === "main" ? "main" : record.id,
    bytes: record.length,
    extents: extentCount(record),
    blocks: blockCount(record),
    blockBytes: record.blockBytes,
    syncs: record.marks.length,
    checksum: record.checksumsAt === null ? "none" : "crc32",
  };
}
