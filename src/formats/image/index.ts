import { Buffer } from "node:buffer";
import { blockCount } from "./blocks.ts";
import { extentCount } from "./extents.ts";
import type { WrittenChannel, WrittenIndex } from "./model.ts";
import { U64_BYTES, viewOf, writeU64 } from "./u64.ts";

/** First eight bytes of the index. */
export const INDEX_MAGIC = "MFDINDEX";
export const INDEX_VERSION = 1;

// Offsets of docs/formats/image.md, "Index".
export const HEADER_BYTES = 16;
export const HEADER = { version: 8, records: 12 } as const;
export const RECORD_BYTES = 48;
export const RECORD = {
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

export const KIND_MAIN = 1;
export const KIND_MULTIFD = 2;
export const CHECKSUM_NONE = 0;
export const CHECKSUM_CRC32 = 1;
export const NO_TAIL = 0xffff_ffff_ffff_ffffn;

/** The fixed part of a record. */
export interface RecordHead {
  readonly kind: WrittenChannel["kind"];
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
export function encodeIndex(index: WrittenIndex): Buffer {
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

function headOf(record: WrittenChannel): RecordHead {
  return {
    kind: record.kind,
    id: record.id,
    length: record.length,
    blockBytes: record.blockBytes,
    hasChecksums: record.checksums !== null,
    tail: record.tail,
    extents: extentCount(record),
    marks: record.marks.length,
    blocks: blockCount(record),
  };
}

/** Bytes of a record with its arrays, padded so that the next one is aligned to 8 again. */
export function recordBytes(head: RecordHead): number {
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

function writeArrays(view: DataView, at: number, record: WrittenChannel): void {
  for (const values of [record.extents, record.marks]) {
    for (const value of values) {
      writeU64(view, at, value);
      at += U64_BYTES;
    }
  }
  for (const checksum of record.checksums ?? []) {
    view.setUint32(at, checksum);
    at += CHECKSUM_BYTES;
  }
}
