import { Buffer } from "node:buffer";
import { damaged } from "../image/damage.ts";
import { readU64, U64_BYTES, viewOf, writeU64 } from "../image/u64.ts";
import { BLOCK_LIMIT } from "../migration/ram-list.ts";
import { bitmapBytes, type MappedBlock, RANGE_BYTES, rangeCount } from "./model.ts";

/** What the trailer's map says of one RAMBlock; its name is in the metadata. */
export interface MapRecord extends Omit<MappedBlock, "name"> {
  /** Bits of the bitmap that are set. */
  readonly presentPages: number;
}

export interface RamMapTable {
  readonly checksums: boolean;
  /** In the order of the stream. */
  readonly blocks: readonly MapRecord[];
}

const MAGIC = "MFDRAMAP";
const LAYOUT_VERSION = 1;
// Offsets of docs/formats/mapped-ram.md, "Map".
const HEADER = { version: 8, blocks: 12, checksumKind: 16, rangeBytes: 20, bytes: 24 } as const;
const RECORD_BYTES = 5 * U64_BYTES;
const CRC32 = 1;
const NO_CHECKSUMS = 0;
export const MAX_MAP_BYTES: number = HEADER.bytes + BLOCK_LIMIT * RECORD_BYTES;

export function encodeMap(map: RamMapTable): Buffer {
  const bytes = Buffer.alloc(HEADER.bytes + map.blocks.length * RECORD_BYTES);
  const view = viewOf(bytes);
  bytes.write(MAGIC, 0, "latin1");
  view.setUint32(HEADER.version, LAYOUT_VERSION);
  view.setUint32(HEADER.blocks, map.blocks.length);
  view.setUint32(HEADER.checksumKind, map.checksums ? CRC32 : NO_CHECKSUMS);
  view.setUint32(HEADER.rangeBytes, RANGE_BYTES);
  for (const [number, block] of map.blocks.entries()) {
    const { usedLength, pageSize, bitmapOffset, pagesOffset, presentPages } = block;
    const fields = [usedLength, pageSize, bitmapOffset, pagesOffset, presentPages];
    for (const [field, value] of fields.entries()) {
      writeU64(view, HEADER.bytes + number * RECORD_BYTES + field * U64_BYTES, value);
    }
  }
  return bytes;
}

/**
 * Reads the map. That its blocks lie where they can is for checkPlaces.
 * @throws MultifdError IMAGE_DAMAGED
 */
export function decodeMap(bytes: Uint8Array): RamMapTable {
  const view = viewOf(bytes);
  if (bytes.length < HEADER.bytes || Buffer.from(bytes.subarray(0, 8)).toString("latin1") !== MAGIC) {
    throw damaged("map byte 0", `it does not begin with "${MAGIC}"`);
  }
  const blocks = view.getUint32(HEADER.blocks);
  const kind = view.getUint32(HEADER.checksumKind);
  expectValue(view, HEADER.version, LAYOUT_VERSION);
  expectValue(view, HEADER.rangeBytes, RANGE_BYTES);
  if (kind !== CRC32) expectValue(view, HEADER.checksumKind, NO_CHECKSUMS);
  if (bytes.length !== HEADER.bytes + blocks * RECORD_BYTES) {
    throw damaged(
      `map byte ${HEADER.blocks}`,
      `it has ${bytes.length} bytes, which ${blocks} blocks do not fill`,
    );
  }
  return { checksums: kind === CRC32, blocks: Array.from({ length: blocks }, (_, n) => readRecord(view, n)) };
}

function readRecord(view: DataView, number: number): MapRecord {
  const field = (n: number): number =>
    readU64(view, HEADER.bytes + number * RECORD_BYTES + n * U64_BYTES, "map");
  return {
    usedLength: field(0),
    pageSize: field(1),
    bitmapOffset: field(2),
    pagesOffset: field(3),
    presentPages: field(4),
  };
}

function expectValue(view: DataView, at: number, wanted: number): void {
  const found = view.getUint32(at);
  if (found !== wanted) throw damaged(`map byte ${at}`, `${found} stands where ${wanted} must`);
}

/**
 * Holds the map's places against each other and against the stream's: everything ascends, and nothing overlaps.
 * @throws MultifdError IMAGE_DAMAGED
 */
export function checkPlaces({ blocks }: RamMapTable, base: number, streamEnd: number): void {
  let from = base;
  for (const [number, block] of blocks.entries()) {
    const { usedLength, pageSize, bitmapOffset, pagesOffset, presentPages } = block;
    const fits =
      pageSize >= 4096 &&
      (pageSize & (pageSize - 1)) === 0 &&
      pageSize <= RANGE_BYTES &&
      usedLength > 0 &&
      usedLength % pageSize === 0 &&
      presentPages <= usedLength / pageSize &&
      bitmapOffset > from &&
      pagesOffset >= bitmapOffset + bitmapBytes(block) &&
      pagesOffset % pageSize === 0 &&
      pagesOffset + usedLength < streamEnd;
    if (!fits) throw damaged(`map, block ${number}`, "its values do not fit the stream's", { block: number });
    from = pagesOffset + usedLength;
  }
}

/** Size of the checksums of all blocks' ranges. */
export function sumsBytes({ checksums, blocks }: RamMapTable): number {
  return checksums ? 4 * blocks.reduce((sum, block) => sum + rangeCount(block), 0) : 0;
}
