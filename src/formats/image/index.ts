import { Buffer } from "node:buffer";
import { blockCount } from "./blocks.ts";
import { damaged } from "./damage.ts";
import {
  type ChannelRecord,
  type Extent,
  type ImageIndex,
  MAX_EXTENTS,
  MAX_MULTIFD_CHANNELS,
} from "./model.ts";
import { readU64, U64_BYTES, viewOf, writeU64 } from "./u64.ts";

/** First eight bytes of the index. */
const INDEX_MAGIC = "MFDINDEX";
const INDEX_VERSION = 1;

// Offsets of docs/formats/image.md, "Index".
const HEADER_BYTES = 16;
const HEADER = { version: 8, records: 12 } as const;
const RECORD_BYTES = 48;
const RECORD = {
  kind: 0,
  id: 4,
  length: 8,
  blockBytes: 16,
  checksumKind: 20,
  tail: 24,
  extents: 32,
  marks: 36,
  blocks: 40,
} as const;
const EXTENT_BYTES = 16;
const CHECKSUM_BYTES = 4;

const KIND_MAIN = 1;
const KIND_MULTIFD = 2;
const CHECKSUM_NONE = 0;
const CHECKSUM_CRC32 = 1;
const NO_TAIL = 0xffff_ffff_ffff_ffffn;

/** The fixed part of a record. */
interface RecordHead {
  readonly kind: ChannelRecord["kind"];
  readonly id: number;
  readonly length: number;
  readonly blockBytes: number;
  readonly hasChecksums: boolean;
  readonly tail: number | null;
  readonly extents: number;
  readonly marks: number;
  readonly blocks: number;
}

/** @returns the index, a multiple of 8 bytes long; to be stored at a multiple of 4096. */
export function encodeIndex(index: ImageIndex): Buffer {
  const heads = index.channels.map(headOf);
  const bytes = Buffer.alloc(heads.reduce((sum, head) => sum + recordBytes(head), HEADER_BYTES));
  const view = viewOf(bytes);
  bytes.write(INDEX_MAGIC, "latin1");
  view.setUint32(HEADER.version, INDEX_VERSION);
  view.setUint32(HEADER.records, index.channels.length);
  let at = HEADER_BYTES;
  for (const [number, record] of index.channels.entries()) {
    const head = heads[number] as RecordHead;
    writeHead(view, at, head);
    writeArrays(view, at + RECORD_BYTES, record);
    at += recordBytes(head);
  }
  return bytes;
}

/**
 * Reads the index. Its checksum is the business of checkRegion, the sense of its values that of checkLayout;
 * no count is believed before the bytes it stands for are there.
 *
 * @throws MultifdError IMAGE_DAMAGED
 */
export function decodeIndex(bytes: Uint8Array): ImageIndex {
  const view = viewOf(bytes);
  const records = readHeader(bytes, view);
  const channels: ChannelRecord[] = [];
  let at = HEADER_BYTES;
  let extents = 0;
  for (let number = 0; number < records; number++) {
    const head = readHead(view, at);
    extents += head.extents;
    if (extents > MAX_EXTENTS) {
      throw wrong(at + RECORD.extents, `there are ${extents} extents, more than the ${MAX_EXTENTS} allowed`);
    }
    channels.push(readRecord(view, at + RECORD_BYTES, head));
    at += recordBytes(head);
  }
  if (at !== bytes.length) throw wrong(at, `${bytes.length - at} bytes follow the last record`);
  return { channels };
}

function readHeader(bytes: Uint8Array, view: DataView): number {
  if (bytes.length < HEADER_BYTES) throw wrong(bytes.length, "it ends within its header");
  const magic = Buffer.from(bytes.subarray(0, HEADER.version)).toString("latin1");
  if (magic !== INDEX_MAGIC) throw wrong(0, `it does not start with "${INDEX_MAGIC}"`);
  const version = view.getUint32(HEADER.version);
  if (version !== INDEX_VERSION)
    throw wrong(HEADER.version, `index version ${version} is not ${INDEX_VERSION}`);
  const records = view.getUint32(HEADER.records);
  if (records > MAX_MULTIFD_CHANNELS + 1) {
    throw wrong(HEADER.records, `${records} channels are more than main and ${MAX_MULTIFD_CHANNELS}`);
  }
  return records;
}

function readHead(view: DataView, at: number): RecordHead {
  if (at + RECORD_BYTES > view.byteLength) throw wrong(view.byteLength, "it ends within a channel's record");
  const head: RecordHead = {
    kind: readKind(view, at + RECORD.kind),
    id: view.getUint32(at + RECORD.id),
    length: readU64(view, at + RECORD.length, "index"),
    blockBytes: view.getUint32(at + RECORD.blockBytes),
    hasChecksums: readChecksumKind(view, at + RECORD.checksumKind),
    tail: readTail(view, at + RECORD.tail),
    extents: view.getUint32(at + RECORD.extents),
    marks: view.getUint32(at + RECORD.marks),
    blocks: view.getUint32(at + RECORD.blocks),
  };
  if (head.blocks !== blockCount(head)) {
    throw wrong(
      at + RECORD.blocks,
      `${head.blocks} blocks of ${head.blockBytes} bytes do not make ${head.length} bytes`,
    );
  }
  const needed = recordBytes(head);
  if (needed > view.byteLength - at) {
    throw wrong(at, `the record needs ${needed} bytes and ${view.byteLength - at} are left`);
  }
  return head;
}

function readRecord(view: DataView, at: number, head: RecordHead): ChannelRecord {
  const marksAt = at + head.extents * EXTENT_BYTES;
  const checksumsAt = marksAt + head.marks * U64_BYTES;
  return {
    kind: head.kind,
    id: head.id,
    length: head.length,
    blockBytes: head.blockBytes,
    extents: readExtents(view, at, head.extents),
    marks: readMarks(view, marksAt, head.marks),
    tail: head.tail,
    checksums: head.hasChecksums ? readChecksums(view, checksumsAt, head.blocks) : null,
  };
}

function readExtents(view: DataView, at: number, count: number): Extent[] {
  const extents: Extent[] = [];
  for (let end = at + count * EXTENT_BYTES; at < end; at += EXTENT_BYTES) {
    extents.push({ offset: readU64(view, at, "index"), length: readU64(view, at + U64_BYTES, "index") });
  }
  return extents;
}

function readMarks(view: DataView, at: number, count: number): number[] {
  const marks: number[] = [];
  for (let end = at + count * U64_BYTES; at < end; at += U64_BYTES) marks.push(readU64(view, at, "index"));
  return marks;
}

function readChecksums(view: DataView, at: number, count: number): Uint32Array {
  const checksums = new Uint32Array(count);
  for (let block = 0; block < count; block++) checksums[block] = view.getUint32(at + block * CHECKSUM_BYTES);
  return checksums;
}

function readKind(view: DataView, at: number): ChannelRecord["kind"] {
  const kind = view.getUint32(at);
  if (kind === KIND_MAIN) return "main";
  if (kind === KIND_MULTIFD) return "multifd";
  throw wrong(at, `channel kind ${kind} is neither main (1) nor multifd (2)`);
}

function readChecksumKind(view: DataView, at: number): boolean {
  const kind = view.getUint32(at);
  if (kind !== CHECKSUM_NONE && kind !== CHECKSUM_CRC32) {
    throw wrong(at, `checksum kind ${kind} is neither none (0) nor CRC-32 (1)`);
  }
  return kind === CHECKSUM_CRC32;
}

function readTail(view: DataView, at: number): number | null {
  return view.getBigUint64(at) === NO_TAIL ? null : readU64(view, at, "index");
}

function headOf(record: ChannelRecord): RecordHead {
  return {
    kind: record.kind,
    id: record.id,
    length: record.length,
    blockBytes: record.blockBytes,
    hasChecksums: record.checksums !== null,
    tail: record.tail,
    extents: record.extents.length,
    marks: record.marks.length,
    blocks: blockCount(record),
  };
}

/** Bytes of a record with its arrays, padded so that the next one is aligned to 8 again. */
function recordBytes(head: RecordHead): number {
  const checksums = head.hasChecksums ? head.blocks * CHECKSUM_BYTES : 0;
  const arrays = head.extents * EXTENT_BYTES + head.marks * U64_BYTES + checksums;
  return RECORD_BYTES + Math.ceil(arrays / 8) * 8;
}

function writeHead(view: DataView, at: number, head: RecordHead): void {
  view.setUint32(at + RECORD.kind, head.kind === "main" ? KIND_MAIN : KIND_MULTIFD);
  view.setUint32(at + RECORD.id, head.id);
  writeU64(view, at + RECORD.length, head.length);
  view.setUint32(at + RECORD.blockBytes, head.blockBytes);
  view.setUint32(at + RECORD.checksumKind, head.hasChecksums ? CHECKSUM_CRC32 : CHECKSUM_NONE);
  if (head.tail === null) view.setBigUint64(at + RECORD.tail, NO_TAIL);
  else writeU64(view, at + RECORD.tail, head.tail);
  view.setUint32(at + RECORD.extents, head.extents);
  view.setUint32(at + RECORD.marks, head.marks);
  view.setUint32(at + RECORD.blocks, head.blocks);
}

function writeArrays(view: DataView, at: number, record: ChannelRecord): void {
  for (const extent of record.extents) {
    writeU64(view, at, extent.offset);
    writeU64(view, at + U64_BYTES, extent.length);
    at += EXTENT_BYTES;
  }
  for (const mark of record.marks) {
    writeU64(view, at, mark);
    at += U64_BYTES;
  }
  for (const checksum of record.checksums ?? []) {
    view.setUint32(at, checksum);
    at += CHECKSUM_BYTES;
  }
}

function wrong(offset: number, problem: string): ReturnType<typeof damaged> {
  return damaged(`index byte ${offset}`, problem, { what: "index", offset });
}
