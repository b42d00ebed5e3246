import { crc32 } from "node:zlib";
import { MultifdError } from "../../errors.ts";
import { alignUp, isAligned } from "../image/align.ts";
import { damaged } from "../image/damage.ts";
import { decodeMetadata, encodeMetadata } from "../image/metadata.ts";
import { type ImageMetadata, MAX_INDEX_BYTES, MAX_METADATA_BYTES, type Region } from "../image/model.ts";
import { FOOTER_BYTES, type Footer, type Seal } from "./footer.ts";
import { checkPlaces, decodeMap, encodeMap, MAX_MAP_BYTES, type RamMapTable, sumsBytes } from "./map.ts";
import type { MappedBlock, MappedStream } from "./model.ts";
import { MARK_BYTES, markOffset } from "./resumed.ts";

/** A sealed mapped-ram image whose trailer was checked; neither the stream nor the pages were. */
export interface MappedTrailer {
  readonly seal: Seal;
  readonly metadata: ImageMetadata;
  readonly map: RamMapTable;
  /** The map's blocks with their names. */
  readonly blocks: readonly MappedBlock[];
}

/** What seals a mapped-ram file. */
export interface BuiltTrailer {
  /** Map, metadata, checksums and the empty place of the mark: to be written, each padded, and flushed before the footer. */
  readonly pieces: readonly { readonly offset: number; readonly bytes: Uint8Array }[];
  /** To be written last, at imageEnd - 4096. */
  readonly footer: Footer & { readonly seal: Seal };
}

/**
 * Builds the trailer, and opens it as a reader would before handing it out.
 * @param sums CRC-32 of each range of each block, big-endian; empty without checksums
 * @param footerAt where the footer must lie, on a device; null: as close behind the rest as it can
 * @throws MultifdError USAGE (metadata too large), INTERNAL (it breaks a rule of the format)
 */
export function buildTrailer(
  identity: { readonly uuid: string; readonly createdMs: number },
  stream: Pick<MappedStream, "base" | "end"> & { readonly crc32: number },
  metadata: ImageMetadata,
  map: RamMapTable,
  sums: Uint8Array,
  footerAt: number | null = null,
): BuiltTrailer {
  const parts = [encodeMap(map), encodeMetadata(metadata), sums] as const;
  let at = alignUp(stream.end);
  const [mapRegion, metadataRegion, sumsRegion] = parts.map((bytes): Region => {
    const region = { offset: at, length: bytes.length, crc32: crc32(bytes) };
    at += alignUp(bytes.length);
    return region;
  }) as [Region, Region, Region];
  const least = at + MARK_BYTES;
  if (footerAt !== null && footerAt < least) {
    const needed = least + FOOTER_BYTES - stream.base;
    const text = `the image does not fit: it needs ${needed} bytes; use a larger device`;
    throw new MultifdError("NO_SPACE", text, { needed });
  }
  const seal: Seal = {
    base: stream.base,
    streamEnd: stream.end,
    streamCrc: stream.crc32,
    map: mapRegion,
    metadata: metadataRegion,
    sums: sumsRegion,
    imageEnd: (footerAt ?? least) + FOOTER_BYTES,
  };
  try {
    checkSeal(seal, stream.base, seal.imageEnd);
    openTrailer(seal, parts[0], parts[1]);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    const text = `the image cannot be sealed because no reader would accept it: ${why}`;
    throw new MultifdError("INTERNAL", text, {}, cause);
  }
  const [mapBytes, metadataBytes] = parts;
  const pieces = [
    { offset: mapRegion.offset, bytes: mapBytes },
    { offset: metadataRegion.offset, bytes: metadataBytes },
    { offset: sumsRegion.offset, bytes: sums },
    { offset: markOffset(seal), bytes: new Uint8Array(MARK_BYTES) },
  ];
  return { pieces, footer: { ...identity, state: "sealed", seal } };
}

/**
 * Checks a footer so far that reading what it points to is safe.
 * @param base where the caller takes the image to begin
 * @param imageEnd where its footer was found to end
 * @throws MultifdError IMAGE_DAMAGED
 */
export function checkSeal(seal: Seal, base: number, imageEnd: number): void {
  const { map, metadata, sums } = seal;
  if (seal.base !== base) {
    throw damaged("footer byte 48", `the image begins at byte ${seal.base} of the file, not at ${base}`);
  }
  if (seal.imageEnd !== imageEnd) {
    throw damaged(
      "footer byte 144",
      `the image ends at byte ${seal.imageEnd} of the file, not at ${imageEnd}`,
    );
  }
  if (seal.streamEnd <= base) throw damaged("footer byte 56", "the stream is empty");
  const limits = { map: MAX_MAP_BYTES, metadata: MAX_METADATA_BYTES, sums: MAX_INDEX_BYTES } as const;
  let from = alignUp(seal.streamEnd);
  for (const [what, region] of Object.entries({ map, metadata, sums })) {
    const fits = isAligned(region.offset) && region.offset >= from && region.offset <= imageEnd;
    if (!fits || region.length > limits[what as keyof typeof limits]) {
      const problem = `it cannot lie at byte ${region.offset} with ${region.length} bytes`;
      throw damaged(`footer: ${what}`, problem, { what });
    }
    from = region.offset + alignUp(region.length);
  }
  if (from > markOffset(seal)) {
    throw damaged("footer byte 120", "the checksums reach into the page before the footer, or into it");
  }
}

/**
 * Decodes what a checked seal points to, but for the checksums, of which only the number is checked.
 * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION
 */
export function openTrailer(seal: Seal, mapBytes: Uint8Array, metadataBytes: Uint8Array): MappedTrailer {
  checkSum("map", seal.map, mapBytes);
  checkSum("metadata", seal.metadata, metadataBytes);
  const map = decodeMap(mapBytes);
  checkPlaces(map, seal.base, seal.streamEnd);
  const metadata = decodeMetadata(metadataBytes);
  if (metadata.ramBlocks.length !== map.blocks.length) {
    throw damaged("map", `it has ${map.blocks.length} blocks and the metadata ${metadata.ramBlocks.length}`);
  }
  if (sumsBytes(map) !== seal.sums.length) {
    throw damaged(
      "footer byte 128",
      `there are ${seal.sums.length} bytes of checksums, not ${sumsBytes(map)}`,
    );
  }
  const blocks = map.blocks.map((block, n) => ({ ...block, name: metadata.ramBlocks[n]?.name ?? "" }));
  return { seal, metadata, map, blocks };
}

/**
 * Holds the stream, as it was walked, against what the trailer says of it.
 * @throws MultifdError IMAGE_DAMAGED
 */
export function checkAgreement({ metadata, blocks }: MappedTrailer, stream: MappedStream): void {
  const said = { ...facts(metadata), blocks: blocks.map(placed) };
  const found = { ...facts(stream), blocks: stream.blocks.map(placed) };
  for (const [name, value] of Object.entries(found)) {
    const stored = said[name as keyof typeof said];
    if (JSON.stringify(stored) === JSON.stringify(value)) continue;
    throw damaged("metadata", `they do not say of the stream's ${name} what the stream says`, {
      field: name,
    });
  }
}

function facts(from: Pick<ImageMetadata, "machine" | "pageSize" | "capabilities" | "devices">): typeof from {
  const { machine, pageSize, capabilities, devices } = from;
  return { machine, pageSize, capabilities, devices };
}

function placed({ name, usedLength, pageSize, bitmapOffset, pagesOffset }: MappedBlock): unknown[] {
  return [name, usedLength, pageSize, bitmapOffset, pagesOffset];
}

function checkSum(what: string, region: Region, bytes: Uint8Array): void {
  if (bytes.length === region.length && crc32(bytes) === region.crc32) return;
  throw damaged(`${what} at byte ${region.offset}`, "its checksum does not fit its bytes", { what });
}
