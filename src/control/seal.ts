import { MultifdError } from "../errors.ts";
import { packExtents } from "../formats/image/extents.ts";
import {
  type ImageMetadata,
  MAX_MARKS,
  type SealEvidence,
  type Superblock,
  type WrittenChannel,
} from "../formats/image/model.ts";
import { buildSeal } from "../formats/image/seal.ts";
import { encodeSuperblock, writingSuperblock } from "../formats/image/superblock.ts";
import { needsZeroedRam } from "../formats/migration/completeness.ts";
import { hasCode, ioError, padded, writeAligned } from "../io/file-io.ts";
import { flush, shrink } from "../io/image-target/durability.ts";
import type { Target } from "../io/image-target/target.ts";
import { punchHole } from "../io/libc.ts";
import type { Drained } from "../pool/messages.ts";
import { VERSION } from "../version.ts";
import type { SaveOptions } from "./options.ts";
import { type Streams, waypoints } from "./streams.ts";

/** Marks the target as an unfinished image, so that an old image in place is no image from here on. */
export async function invalidate(target: Target, uuid: string, createdMs: number): Promise<void> {
  await writeAligned(target.fd, encodeSuperblock(writingSuperblock(uuid, createdMs)), target.base);
  await flush(target.fd);
}

/**
 * Makes the drained data an image: data flushed, metadata and index written and flushed, then the sealed superblock
 * written and flushed. Only after that is the image one, whenever the power fails.
 */
export async function seal(
  target: Target,
  identity: { readonly uuid: string; readonly createdMs: number },
  drained: readonly Drained[],
  metadata: ImageMetadata,
): Promise<Superblock> {
  const { offset, closing, superblock } = buildSeal(identity, metadata, {
    channels: channelRecords(drained),
  });
  const end = target.base + superblock.imageBytes;
  if (target.capacity !== null && superblock.imageBytes > target.capacity) {
    const text = `the image does not fit: it needs ${superblock.imageBytes} bytes and its device has ${target.capacity}; use a larger one`;
    throw new MultifdError("NO_SPACE", text, { capacity: target.capacity, needed: superblock.imageBytes });
  }
  if (target.sparse) releaseTails(target, drained, offset);
  await flush(target.fd);
  await writeAligned(target.fd, closing, target.base + offset);
  if (target.ownsFile) shrink(target.fd, end);
  await flush(target.fd);
  await writeAligned(target.fd, encodeSuperblock(superblock), target.base);
  await flush(target.fd);
  return superblock;
}

/** What the streams and QMP say of the VM, and what the user gave. */
export function describe(
  streams: Streams,
  evidence: SealEvidence,
  { meta = {}, describeVm }: Pick<SaveOptions, "meta" | "describeVm">,
): ImageMetadata {
  const { main, multifd } = streams;
  const vm = describeVm?.() ?? null;
  return {
    writer: `multifd-helper ${VERSION}`,
    // Only QMP tells; the stream does not.
    qemuVersion: vm?.qemuVersion ?? null,
    multifdChannels: multifd.length,
    compression: multifd.find((channel) => channel.compression !== null)?.compression ?? null,
    machine: main.machine,
    vmUuid: multifd[0]?.uuid ?? main.uuid,
    pageSize: main.pageSize,
    barrierMode: barrierModeSeen(streams),
    capabilities: main.capabilities,
    ramBlocks: main.ramBlocks,
    devices: main.devices,
    needsZeroedRam: needsZeroedRam(main, multifd),
    evidence,
    vm: vm?.record ?? null,
    ...userMeta(meta),
  };
}

/**
 * The words that pair with SYNC packets, where the streams show it: newer sources of a single stream, too, leave MULTIFD_FLUSH
 * out, so that without channels its absence says nothing. Who makes channels of it goes by the machine type then.
 */
function barrierModeSeen({ main, multifd }: Streams): ImageMetadata["barrierMode"] {
  return multifd.length === 0 && main.barrierMode === "legacy" ? null : main.barrierMode;
}

function channelRecords(drained: readonly Drained[]): WrittenChannel[] {
  const records = drained.map(({ summary, blockBytes, extents, checksums }): WrittenChannel => {
    const id = summary.kind === "main" ? 0 : summary.id;
    const placed = { length: summary.bytes, blockBytes, extents: packExtents(extents), checksums };
    return { kind: summary.kind, id, ...placed, ...waypoints(summary) };
  });
  const marks = records.reduce((sum, record) => sum + record.marks.length, 0);
  if (marks > MAX_MARKS) {
    const text = `the streams have ${marks} SYNCs and barriers and an image holds ${MAX_MARKS}: migrate with fewer channels, or stop the VM before`;
    throw new MultifdError("PROTOCOL", text, { marks, limit: MAX_MARKS });
  }
  return records.sort((a, b) => rank(a) - rank(b));
}

function rank(record: WrittenChannel): number {
  return record.kind === "main" ? -1 : record.id;
}

/** Gives back what was reserved for extents and not written, except behind the data, where the index goes. */
function releaseTails(target: Target, drained: readonly Drained[], dataEnd: number): void {
  for (const { extents, claimedEnd } of drained) {
    const last = extents.at(-1);
    if (last === undefined) continue;
    const unused = last.offset + padded(last.length);
    if (unused >= claimedEnd || unused >= dataEnd) continue;
    try {
      punchHole(target.fd, target.base + unused, Math.min(claimedEnd, dataEnd) - unused);
    } catch (error) {
      // A file system that cannot punch holes keeps a few MiB more; nothing else depends on it.
      if (hasCode(error, "EOPNOTSUPP", "ENOSYS", "ENOTSUP")) return;
      throw ioError(error, "giving back unused space", target.base + unused);
    }
  }
}

/** Splits what the user gave into text and bytes. */
export function userMeta(
  meta: Readonly<Record<string, string | Uint8Array>>,
): Pick<ImageMetadata, "user" | "userBinary"> {
  const user: Record<string, string> = {};
  const userBinary: Record<string, string> = {};
  for (const [key, value] of Object.entries(meta)) {
    const text = typeof value === "string" ? value : utf8(value);
    if (text !== null) user[key] = text;
    else userBinary[key] = Buffer.from(value as Uint8Array).toString("base64");
  }
  return { user, userBinary };
}

function utf8(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return null;
  }
}
