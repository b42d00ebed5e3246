import { Buffer } from "node:buffer";
import { setImmediate as nextTurn } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { MultifdError } from "../../errors.ts";
import { CrcJoiner, combineCrc32 } from "../../formats/crc32-combine.ts";
import type { ImageMetadata } from "../../formats/image/model.ts";
import { encodeFooter, FOOTER_BYTES, footerOffset, type Seal } from "../../formats/mapped-ram/footer.ts";
import { type RamMapTable, sumsBytes } from "../../formats/mapped-ram/map.ts";
import { type MappedBlock, RANGE_BYTES } from "../../formats/mapped-ram/model.ts";
import { PresentPages } from "../../formats/mapped-ram/ranges.ts";
import { buildTrailer } from "../../formats/mapped-ram/trailer.ts";
import { writeAligned } from "../../io/file-io.ts";
import { flush, shrink } from "../../io/image-target/durability.ts";
import type { Target } from "../../io/image-target/target.ts";
import { dropCached } from "../../io/libc.ts";
import type { PlacedMain } from "../../pool/messages.ts";
import type { RamTables } from "../../pool/placing/ram-tables.ts";
import type { ImageIdentity } from "../save-format.ts";
import { punchAbsent } from "./absent.ts";

const PIECE = 1024 * 1024;
/** Pages dealt with in one go: a few milliseconds, so that a signal is heard. */
const PAGES_A_TURN = 256 * 1024;
const MAGIC_BYTES = 4;

/** Marks what was at the target as no image: neither QEMU nor any reader takes it for one from here on. */
export async function invalidateMapped(target: Target, identity: ImageIdentity): Promise<void> {
  const { fd, base } = target;
  if (target.capacity === null) shrink(fd, base);
  else {
    await writeAligned(fd, new Uint8Array(FOOTER_BYTES), base);
    await writeAligned(
      fd,
      encodeFooter({ ...identity, state: "writing", seal: null }),
      footerOffset(base + target.capacity),
    );
  }
  await flush(fd);
}

/**
 * Makes the placed pages an image: QEMU's part is completed but for its magic, the trailer is written and flushed, and then
 * the magic, without which the file is no stream to anybody, whenever the power fails.
 * @throws MultifdError NO_SPACE, IO, USAGE (metadata too large)
 */
export async function sealPlaced(
  target: Target,
  identity: ImageIdentity,
  { layout, tail }: PlacedMain,
  ram: RamTables,
  metadata: ImageMetadata,
): Promise<Seal> {
  const { fd, base } = target;
  const map: RamMapTable = {
    checksums: ram.hasChecksums,
    blocks: ram.blocks.map((block, n) => ({ ...block, presentPages: countPresent(ram, block, n) })),
  };
  const sums = await rangeSums(ram, map);
  if (target.sparse) {
    for (const number of ram.blocks.keys()) await punchAbsent(fd, ram, number, "leave");
  }
  const { crc, firstPage } = await writeHeads(fd, layout.heads, ram, base);
  const stream = {
    base,
    end: layout.tailOffset + tail.length,
    crc32: combineCrc32(crc, tail.crc32, tail.length),
  };
  const footerAt = target.capacity === null ? null : footerOffset(base + target.capacity);
  const { pieces, footer } = buildTrailer(identity, stream, metadata, map, sums, footerAt);
  for (const { offset, bytes } of pieces) await writePieces(fd, bytes, offset);
  if (target.capacity === null) shrink(fd, footer.seal.imageEnd);
  await flush(fd);
  dropCached(fd);
  await writeAligned(fd, encodeFooter(footer), footer.seal.imageEnd - FOOTER_BYTES);
  await flush(fd);
  await writeAligned(fd, firstPage, base);
  await flush(fd);
  return footer.seal;
}

function countPresent(ram: RamTables, block: MappedBlock, number: number): number {
  const pages = new PresentPages(block);
  pages.push(ram.bitmap(number));
  return pages.count;
}

/** CRC-32 of each range from those of its pages, as they go to the file. */
async function rangeSums(ram: RamTables, map: RamMapTable): Promise<Uint8Array> {
  const sums = Buffer.alloc(sumsBytes(map));
  if (sums.length === 0) return sums;
  // One size for all blocks: the guest's (MappedRamHeader, page_size, in migration/ram.c of QEMU 9.0).
  const { pageSize } = ram.blocks[0] as MappedBlock;
  const joiner = new CrcJoiner(pageSize);
  let at = 0;
  for (const [number, { usedLength }] of ram.blocks.entries()) {
    const pages = usedLength / pageSize;
    for (let first = 0; first < pages; first += PAGES_A_TURN) {
      at = putSums(sums, at, ram, { number, first, end: Math.min(pages, first + PAGES_A_TURN) }, joiner);
      await nextTurn();
    }
  }
  return sums;
}

/** Not async: V8 does not optimise a loop of one while it runs. @returns where the next ones go */
function putSums(
  sums: Buffer,
  start: number,
  ram: RamTables,
  { number, first, end }: { readonly number: number; readonly first: number; readonly end: number },
  joiner: CrcJoiner,
): number {
  const bits = ram.bitmap(number);
  const crcs = ram.checksums(number);
  const pagesARange = RANGE_BYTES / (ram.blocks[number] as MappedBlock).pageSize;
  let at = start;
  for (let page = first; page < end; page += pagesARange) {
    at = sums.writeUInt32BE(joiner.join(crcs, bits, page, Math.min(end, page + pagesARange)), at);
  }
  return at;
}

/**
 * Writes what stands between the pages of the blocks, bitmaps included. Of the first page of the file, only the magic is
 * held back: the page is returned.
 */
async function writeHeads(
  fd: number,
  heads: readonly Uint8Array[],
  ram: RamTables,
  base: number,
): Promise<{ crc: number; firstPage: Uint8Array }> {
  let crc = 0;
  let at = base;
  let firstPage = new Uint8Array(0);
  for (const [number, { pagesOffset, usedLength }] of ram.blocks.entries()) {
    // Each begins where pages end, at a multiple of 4096, and has free space behind it.
    const bytes = Buffer.concat([heads[number] as Uint8Array, ram.bitmap(number)]);
    crc = crc32(bytes, crc);
    if (number === 0) {
      firstPage = Uint8Array.from(bytes.subarray(0, FOOTER_BYTES));
      bytes.fill(0, 0, MAGIC_BYTES);
    }
    await writePieces(fd, bytes, at);
    at = pagesOffset + usedLength;
  }
  if (firstPage.length < MAGIC_BYTES) throw new MultifdError("INTERNAL", "a mapped-ram file has no head");
  return { crc, firstPage };
}

async function writePieces(fd: number, bytes: Uint8Array, offset: number): Promise<void> {
  for (let at = 0; at < bytes.length; at += PIECE) {
    await writeAligned(fd, bytes.subarray(at, at + PIECE), offset + at);
  }
}
