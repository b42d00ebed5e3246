import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { alignUp } from "../image/align.ts";
import { U64_BYTES, viewOf, writeU64 } from "../image/u64.ts";
import { MAPPED_RAM } from "../migration/configuration.ts";
import { RAM_FLAGS } from "../migration/ram-records.ts";
import type { RamListed } from "../migration/record-sink.ts";
import { bitmapBytes, type MappedBlock, RANGE_BYTES } from "./model.ts";

/**
 * Where everything goes when a stream of any QEMU is written as a mapped-ram file, and which of its bytes change on the
 * way (mapped_ram_setup_ramblock and vmstate_configuration of QEMU 10.0.2).
 */

// MappedRamHeader of QEMU 9.0 to 10.0.2, migration/ram.c: version, page size, bitmap offset, pages offset.
const HEADER_BYTES = 28;
const HEADER_VERSION = 1;
/** QEMU's own alignment of pages; its loader asks for whole pages only. */
const PAGES_ALIGNMENT = 1024 * 1024;
const LEAST_PAGE = 4096;
const SECTION_END = 0x03;
const FOOTER = 0x7e;

/** A mapped-ram file that is to be written. */
export interface MappedLayout {
  readonly base: number;
  readonly blocks: readonly MappedBlock[];
  /** For each block, what stands between the pages of the one before it (or the base) and its bitmap. */
  readonly heads: readonly Uint8Array[];
  /** Where the stream goes on behind the last block's pages: a multiple of 4096. */
  readonly tailOffset: number;
}

/**
 * Lays a file out.
 * @param base where the stream is to begin, a multiple of 4096
 * @param before the main stream's bytes in front of its block list
 * @throws MultifdError UNSUPPORTED_STREAM what mapped-ram cannot carry
 */
export function layOut(base: number, before: Uint8Array, ram: RamListed): MappedLayout {
  refuseUnfit(ram);
  const blocks: MappedBlock[] = [];
  const heads: Uint8Array[] = [];
  let at = base;
  let head: Uint8Array = Buffer.concat([withCapability(before, ram.subsections), ramSize(ram)]);
  for (const { name, usedLength } of ram.blocks) {
    const entry = Buffer.alloc(1 + name.length + U64_BYTES + HEADER_BYTES);
    const bitmapOffset = at + head.length + entry.length;
    const bare = { name, usedLength, pageSize: ram.pageSize, bitmapOffset };
    const block = { ...bare, pagesOffset: alignUp(bitmapOffset + bitmapBytes(bare), PAGES_ALIGNMENT) };
    writeEntry(entry, block);
    heads.push(Buffer.concat([head, entry]));
    blocks.push(block);
    at = block.pagesOffset + usedLength;
    head = new Uint8Array(0);
  }
  return { base, blocks, heads, tailOffset: at };
}

/** pagesOffset of a block whose pages go nowhere. */
export const NOWHERE = -1;

/**
 * Lays out a file that has nothing but the pages of one block, from its base on; of none, where only what the pages hold
 * is wanted.
 * @throws MultifdError UNSUPPORTED_STREAM, USAGE (there is no such block)
 */
export function layOutBlock(base: number, ram: RamListed, wanted: string | null): MappedLayout {
  refuseUnfit(ram);
  const { blocks, pageSize } = ram;
  if (wanted !== null && !blocks.some(({ name }) => name === wanted)) {
    const names = blocks.map(({ name }) => name).join(", ");
    throw new MultifdError("USAGE", `there is no RAMBlock "${wanted}": the image has ${names}`, {});
  }
  const placed = blocks.map(({ name, usedLength }) => {
    const pagesOffset = name === wanted ? base : NOWHERE;
    return { name, usedLength, pageSize, bitmapOffset: 0, pagesOffset };
  });
  const length = placed.find(({ pagesOffset }) => pagesOffset === base)?.usedLength ?? 0;
  return { base, blocks: placed, heads: [], tailOffset: base + length };
}

/** The word that ends the payload of a RAM section. */
export const RAM_SECTION_END: Uint8Array = Buffer.from([0, 0, 0, 0, 0, 0, 0, RAM_FLAGS.EOS]);

/** The END section of RAM, for a stream that has none. */
export function ramEndSection(sectionId: number): Uint8Array {
  const id = Buffer.alloc(4);
  id.writeUInt32BE(sectionId);
  return Buffer.concat([Buffer.from([SECTION_END]), id, RAM_SECTION_END, Buffer.from([FOOTER]), id]);
}

function refuseUnfit({ blocks, capabilities, pageSize }: RamListed): void {
  if (capabilities.length > 0) {
    // Only x-ignore-shared: QEMU 10.0.2 neither writes nor reads it rightly together with mapped-ram.
    throw unsupported(`the capability ${capabilities.join(", ")} was on when it was saved`);
  }
  if (pageSize < LEAST_PAGE || pageSize > RANGE_BYTES) throw unsupported(`its pages have ${pageSize} bytes`);
  if (blocks.length === 0) throw unsupported("it has no RAM");
}

/** What a stream holds that has no place in a mapped-ram file. */
export function unsupported(what: string): MultifdError {
  const text = `the VM's stream cannot be written as mapped-ram: ${what}; use --format stream, which keeps every stream as it is`;
  return new MultifdError("UNSUPPORTED_STREAM", text, {});
}

/** The configuration says that the capability is on: `configuration/capabilities`, u32 count, then u8 length and name. */
function withCapability(before: Uint8Array, at: number): Uint8Array {
  const name = "configuration/capabilities";
  const subsection = Buffer.concat([
    Buffer.from([0x05, name.length]),
    Buffer.from(name, "latin1"),
    Buffer.from([0, 0, 0, 1, 0, 0, 0, 1, MAPPED_RAM.length]),
    Buffer.from(MAPPED_RAM, "latin1"),
  ]);
  return Buffer.concat([before.subarray(0, at), subsection, before.subarray(at)]);
}

function ramSize({ blocks }: RamListed): Uint8Array {
  const word = Buffer.alloc(U64_BYTES);
  writeU64(viewOf(word), 0, blocks.reduce((sum, { usedLength }) => sum + usedLength, 0) + RAM_FLAGS.MEM_SIZE);
  return word;
}

function writeEntry(entry: Buffer, block: MappedBlock): void {
  const view = viewOf(entry);
  const { name, usedLength, pageSize, bitmapOffset, pagesOffset } = block;
  entry.writeUInt8(name.length, 0);
  entry.write(name, 1, "latin1");
  writeU64(view, 1 + name.length, usedLength);
  const header = 1 + name.length + U64_BYTES;
  entry.writeUInt32BE(HEADER_VERSION, header);
  writeU64(view, header + 4, pageSize);
  writeU64(view, header + 12, bitmapOffset);
  writeU64(view, header + 20, pagesOffset);
}
