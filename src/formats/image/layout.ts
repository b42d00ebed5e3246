import { isAligned } from "./align.ts";
import { damaged } from "./damage.ts";
import { extentCount, extentsOf } from "./extents.ts";
import {
  type ChannelRecord,
  type ImageIndex,
  type ImageMetadata,
  MAX_BLOCK_BYTES,
  MAX_BLOCK_SUM,
  MAX_MULTIFD_CHANNELS,
  SUPERBLOCK_BYTES,
  type Superblock,
} from "./model.ts";
import { checkPlace, sealedRegions } from "./regions.ts";

/** Bytes that restore reads and checks; the padding behind them is neither. */
export interface UsedRange {
  readonly what: "superblock" | "metadata" | "index" | "main" | `channel ${number}` | "neighbours";
  readonly offset: number;
  readonly length: number;
}

/**
 * Holds superblock and index against every rule of the layout, so that readers need no further check before they
 * use an offset.
 *
 * @param availableBytes bytes of the file from the base of the image on
 * @throws MultifdError NOT_SEALED, IMAGE_DAMAGED
 */
export function checkLayout(superblock: Superblock, index: ImageIndex, availableBytes: number): void {
  sealedRegions(superblock, availableBytes);
  checkChannelSet(index.channels);
  for (const record of index.channels) {
    checkRecord(record);
    checkExtents(record, superblock.imageBytes);
    checkMarks(record);
  }
  checkBlockSum(index.channels);
  checkOverlaps(sortedRanges(superblock, index));
}

/**
 * Holds metadata and index against each other.
 *
 * @throws MultifdError IMAGE_DAMAGED
 */
export function checkAgreement(metadata: ImageMetadata, index: ImageIndex): void {
  const channels = index.channels.length - 1;
  if (metadata.multifdChannels !== channels) {
    throw damaged(
      "metadata field multifdChannels",
      `it is ${metadata.multifdChannels}, but the index has ${channels} multifd channels`,
    );
  }
  // Restore sends barrier k on main once every channel has sent its SYNC k: unequal counts would never meet.
  const barriers = index.channels[0]?.marks.length ?? 0;
  if (barriers === 0) return;
  for (const record of index.channels.slice(1)) {
    if (record.marks.length !== barriers) {
      throw damaged(nameOf(record), `it has ${record.marks.length} SYNCs, but main has ${barriers} barriers`);
    }
  }
}

/** More than this nobody reads, and a list of all extents that an image may have would fill memory. */
const MAX_RANGES = 65536;

/**
 * What of the file restore depends on, in the order of the file. Where that would be more than 65,536 ranges, each
 * stands for several neighbours, with what lies between them.
 *
 * @param base added to each offset
 */
export function usedRanges(superblock: Superblock, index: ImageIndex, base = 0): readonly UsedRange[] {
  const { starts, lengths, nameAt, order } = sortedRanges(superblock, index);
  const together = Math.ceil(order.length / MAX_RANGES);
  const ranges: UsedRange[] = [];
  for (let number = 0; number < order.length; number += together) {
    const first = order[number] as number;
    const last = order[Math.min(number + together, order.length) - 1] as number;
    const offset = starts[first] as number;
    const end = (starts[last] as number) + (lengths[last] as number);
    ranges.push({
      what: together === 1 ? nameAt(first) : "neighbours",
      offset: base + offset,
      length: end - offset,
    });
  }
  return ranges;
}

/** Numbers, not objects: a forged index may have as many extents as the format allows. */
interface SortedRanges {
  readonly starts: Float64Array;
  readonly lengths: Float64Array;
  readonly nameAt: (at: number) => UsedRange["what"];
  /** Places in the arrays, by start. */
  readonly order: Uint32Array;
}

function sortedRanges(superblock: Superblock, index: ImageIndex): SortedRanges {
  const regions = usedRegions(superblock);
  const count = regions.length + index.channels.reduce((sum, record) => sum + extentCount(record), 0);
  const starts = new Float64Array(count);
  const lengths = new Float64Array(count);
  const owners = new Uint16Array(count);
  let filled = 0;
  for (const [owner, { offset, length }] of regions.entries()) {
    starts[filled] = offset;
    lengths[filled] = length;
    owners[filled++] = owner;
  }
  for (const [number, { extents }] of index.channels.entries()) {
    for (let at = 0; at < extents.length; at += 2) {
      starts[filled] = extents[at] as number;
      lengths[filled] = extents[at + 1] as number;
      owners[filled++] = regions.length + number;
    }
  }
  const names = [...regions.map(({ what }) => what), ...index.channels.map(nameOf)];
  const nameAt = (at: number): UsedRange["what"] => names[owners[at] as number] as UsedRange["what"];
  const order = new Uint32Array(count).map((_, at) => at);
  order.sort((a, b) => (starts[a] as number) - (starts[b] as number));
  return { starts, lengths, nameAt, order };
}

function usedRegions({ metadata, index }: Superblock): readonly UsedRange[] {
  const regions: UsedRange[] = [{ what: "superblock", offset: 0, length: SUPERBLOCK_BYTES }];
  if (metadata !== null) regions.push({ what: "metadata", offset: metadata.offset, length: metadata.length });
  if (index !== null) regions.push({ what: "index", offset: index.offset, length: index.length });
  return regions;
}

function nameOf(record: ChannelRecord): "main" | `channel ${number}` {
  return record.kind === "main" ? "main" : `channel ${record.id}`;
}

function checkChannelSet(channels: readonly ChannelRecord[]): void {
  const [main, ...multifd] = channels;
  if (main?.kind !== "main" || main.id !== 0)
    throw damaged("index", "its first record is not main with id 0");
  if (multifd.length > MAX_MULTIFD_CHANNELS) {
    throw damaged("index", `${multifd.length} multifd channels are more than ${MAX_MULTIFD_CHANNELS}`);
  }
  for (const [id, record] of multifd.entries()) {
    if (record.kind !== "multifd" || record.id !== id) {
      throw damaged("index", `record ${id + 1} is ${nameOf(record)} where channel ${id} must be`);
    }
  }
}

function checkRecord(record: ChannelRecord): void {
  const { blockBytes } = record;
  if (!isAligned(blockBytes) || blockBytes === 0 || blockBytes > MAX_BLOCK_BYTES) {
    throw damaged(
      nameOf(record),
      `its block size ${blockBytes} is no multiple of 4096 from 4096 to ${MAX_BLOCK_BYTES}`,
    );
  }
}

/** Restore holds a block of every channel at once, checked before its first byte is sent. */
function checkBlockSum(channels: readonly ChannelRecord[]): void {
  const sum = channels.reduce((bytes, record) => bytes + record.blockBytes, 0);
  if (sum > MAX_BLOCK_SUM) {
    throw damaged(
      "index",
      `the block sizes of its ${channels.length} channels add up to ${sum} bytes, more than ${MAX_BLOCK_SUM}`,
    );
  }
}

function checkExtents(record: ChannelRecord, imageBytes: number): void {
  const name = nameOf(record);
  let sum = 0;
  let left = extentCount(record);
  for (const extent of extentsOf(record)) {
    checkPlace(name, extent, imageBytes);
    left -= 1;
    if (left > 0 && extent.length % record.blockBytes !== 0) {
      throw damaged(
        `${name} at byte ${extent.offset}`,
        `its extent of ${extent.length} bytes cuts a block of ${record.blockBytes}`,
        { what: name, offset: extent.offset },
      );
    }
    sum += extent.length;
  }
  if (sum !== record.length)
    throw damaged(name, `its extents hold ${sum} bytes, but it has ${record.length}`);
}

function checkMarks(record: ChannelRecord): void {
  const name = nameOf(record);
  let previous = -1;
  for (const mark of record.marks) {
    if (mark <= previous) throw damaged(name, `its mark ${mark} does not ascend from ${previous}`);
    previous = mark;
  }
  if (previous > record.length) {
    throw damaged(name, `its mark ${previous} lies beyond its ${record.length} bytes`);
  }
  const { tail } = record;
  if (tail === null) return;
  if (record.kind === "multifd") throw damaged(name, "it has a tail, which only main can have");
  if (tail > record.length || tail < previous) {
    throw damaged(name, `its tail ${tail} does not lie between its last mark and its end ${record.length}`);
  }
}

/** As all ranges start aligned, what starts behind the bytes of another starts behind its padding too. */
function checkOverlaps({ starts, lengths, nameAt, order }: SortedRanges): void {
  let previous = order[0] as number;
  for (const at of order.subarray(1)) {
    const offset = starts[at] as number;
    const from = starts[previous] as number;
    const length = lengths[previous] as number;
    if (offset < from + length) {
      throw damaged(
        `${nameAt(at)} at byte ${offset}`,
        `it overlaps ${nameAt(previous)} at byte ${from} with its ${length} bytes`,
        { what: nameAt(at), offset },
      );
    }
    previous = at;
  }
}
