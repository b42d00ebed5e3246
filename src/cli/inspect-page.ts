import type { ChannelReport, ImageReport, StreamImageReport } from "../index.ts";
import { describeLibvirt, describeQemuStream } from "./foreign-page.ts";
import { formatBytes } from "./format.ts";
import { describeMapped } from "./mapped-page.ts";
import { describeEvidence, shownUuid } from "./metadata-words.ts";
import { describeRestore } from "./restore-page.ts";
import { type Row, section } from "./section.ts";
import { describeSavedVm } from "./vm-page.ts";

type ImageMetadata = NonNullable<StreamImageReport["metadata"]>;

/** What `inspect` shows a person; `--json` has the same facts and more. Ends with a newline. */
export function describeImage(report: ImageReport): string {
  switch (report.format) {
    case "mapped-ram":
      return describeMapped(report);
    case "qemu-stream":
      return describeQemuStream(report);
    case "libvirt":
      return describeLibvirt(report);
    case "stream":
      return describeStreams(report);
  }
}

function describeStreams(report: StreamImageReport): string {
  const sections = [describeFile(report)];
  const { metadata, destination } = report;
  if (metadata !== null) {
    sections.push(describeVm(metadata), ...describeSavedVm(metadata));
    sections.push(describeChannels(report.channels), describeRam(metadata));
    sections.push(...describeUserData(metadata));
  }
  if (destination !== null) sections.push(describeRestore(report, destination));
  return `${sections.join("\n\n")}\n`;
}

function describeFile(report: StreamImageReport): string {
  const { metadata, bytes, dataBytes } = report;
  const size =
    bytes === null || dataBytes === null
      ? "unknown, as it was never finished"
      : `${formatBytes(bytes)} (${bytes} bytes), ${formatBytes(dataBytes)} of it from QEMU`;
  return section(`Image ${report.path}`, [
    ["format", `${report.format}, version ${report.formatVersion}`],
    ["sealed", report.sealed ? `yes, ${describeEvidence(metadata)}` : "no: it cannot be restored"],
    ["created", report.created],
    ["written by", metadata?.writer],
    ["image UUID", report.imageUuid],
    ["starts at", report.base === 0 ? undefined : `byte ${report.base} of the file`],
    ["size", size],
  ]);
}

function describeVm(metadata: ImageMetadata): string {
  return section("Virtual machine", [
    ["machine", metadata.machine ?? "unknown"],
    ["UUID", shownUuid(metadata)],
    ["page size", `${metadata.pageSize} bytes`],
    ["capabilities", metadata.capabilities.join(", ") || undefined],
    ["compression", metadata.compression ?? "none"],
    ["barriers", metadata.barrierMode ?? "none"],
    ["devices", metadata.devices.join(", ") || undefined],
  ]);
}

function describeChannels(channels: readonly ChannelReport[]): string {
  const rows = channels.map((channel): Row => {
    const marks = channel.channel === "main" ? "barriers" : "syncs";
    const extents = `${channel.extents} extent${channel.extents === 1 ? "" : "s"}`;
    const blocks = `blocks of ${formatBytes(channel.blockBytes)}`;
    const checksum = channel.checksum === "none" ? "no checksums" : channel.checksum;
    return [
      channel.channel === "main" ? "main" : `channel ${channel.channel}`,
      `${formatBytes(channel.bytes)} in ${extents}, ${blocks}, ${checksum}, ${channel.syncs} ${marks}`,
    ];
  });
  return section("Channels", rows);
}

function describeRam(metadata: ImageMetadata): string {
  const shared = metadata.capabilities.includes("x-ignore-shared");
  return section(
    shared ? "RAM blocks (the contents of shared ones are not in this image)" : "RAM blocks",
    metadata.ramBlocks.map((block): Row => [block.name, formatBytes(block.usedLength)]),
  );
}

/** Keys and sizes only: a value may be a whole domain definition, and it may be confidential. */
function describeUserData({ user, userBinary }: ImageMetadata): string[] {
  const rows: Row[] = [
    ...Object.entries(user).map(([key, text]): Row => [key, `text, ${formatBytes(Buffer.byteLength(text))}`]),
    ...Object.entries(userBinary).map(
      ([key, base64]): Row => [key, `binary, ${formatBytes(Buffer.byteLength(base64, "base64"))}`],
    ),
  ];
  return rows.length === 0 ? [] : [section("Metadata", rows)];
}
