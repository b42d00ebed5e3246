import type { Buffer } from "node:buffer";
import { readFile } from "node:fs/promises";
import { crc32 } from "./crc32.ts";
import { Cursor, demand, isZero } from "./cursor.ts";
import { PAGE } from "./main-stream.ts";
import { type MappedBlock, type MappedFile, mappedFileIn } from "./mapped-file.ts";

const RANGE = 65536;
const FOOTER = 4096;
const MARK = 4096;

export interface Trailer {
  readonly base: number;
  readonly streamEnd: number;
  readonly imageUuid: string;
  /** Milliseconds since 1970. */
  readonly created: number;
  readonly checksums: boolean;
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** A region that the footer points to. */
interface Region {
  readonly offset: number;
  readonly length: number;
  readonly bytes: Buffer;
}

/**
 * Reads the trailer of a mapped-ram image in a regular file by docs/formats/mapped-ram.md, without using anything of the product. Every
 * checksum is recomputed, that of every range too, and everything is compared with the stream, as our plain reader of it
 * understands it. Stricter than the page asks of readers: what writers must write as zero has to be zero.
 */
export async function readTrailer(path: string): Promise<Trailer> {
  const file = await readFile(path);
  const footerAt = Math.floor(file.length / FOOTER) * FOOTER - FOOTER;
  demand(footerAt >= 0, `no footer fits into ${file.length} bytes`);
  const footer = new Cursor(file, footerAt);
  demand(footer.text(8) === "MFDMSEAL", `no footer at ${footerAt}`);
  const sum = file.readUInt32BE(footerAt + 4092);
  agree("footer_crc32", sum, crc32([file.subarray(footerAt, footerAt + 4092)]));
  const opening = [footer.u32(), footer.u32(), footer.u32(), footer.u32()].join();
  demand(opening === "1,0,0,2", `version, features and state are ${opening}, not 1,0,0,2`);
  const imageUuid = footer.take(16).toString("hex");
  const created = footer.u64();
  const [base, streamEnd, streamSum] = [footer.u64(), footer.u64(), footer.u32()];
  demand(footer.u32() === 0, "the reserved field behind stream_crc32 is not zero");
  demand(base < streamEnd && streamEnd <= footerAt, `the stream is from ${base} to ${streamEnd}`);
  const map = readRegion("map", footer, file, padded(streamEnd));
  const metadataRegion = readRegion("metadata", footer, file, padded(map.offset + map.length));
  const sums = readRegion("sums", footer, file, padded(metadataRegion.offset + metadataRegion.length));
  const markAt = padded(sums.offset + sums.length);
  agree("the footer's place", footerAt, markAt + MARK);
  agree("image_end", footer.u64(), footerAt + FOOTER);
  agree("the end of the file", file.length, footerAt + FOOTER);
  demand(isZero(footer.take(3940)), "the reserved bytes of the footer are not zero");
  demand(isZero(file.subarray(streamEnd, map.offset)), "the padding behind the stream is not zero");
  demand(
    isZero(file.subarray(markAt, footerAt)),
    "its VM was resumed, or the place of the mark was not cleared",
  );

  const mapped = mappedFileIn(file, base, streamEnd);
  const checksums = readMap(map.bytes, mapped);
  agree("stream_crc32", streamSum, crc32(streamPieces(file, base, streamEnd, mapped.blocks)));
  readSums(sums.bytes, checksums ? mapped.blocks : []);
  const metadata = readMetadata(metadataRegion.bytes, mapped);
  return { base, streamEnd, imageUuid, created, checksums, metadata };
}

/** Offset, length and CRC-32 of the footer; the region must lie where the one before it, padded, ended. */
function readRegion(what: string, footer: Cursor, file: Buffer, wanted: number): Region {
  const [offset, length, sum] = [footer.u64(), footer.u64(), footer.u32()];
  demand(footer.u32() === 0, `the reserved field behind ${what}_crc32 is not zero`);
  agree(`${what}_offset`, offset, wanted);
  const bytes = new Cursor(file, offset).take(length);
  agree(`${what}_crc32`, sum, crc32([bytes]));
  demand(
    isZero(file.subarray(offset + length, padded(offset + length))),
    `the padding of ${what} is not zero`,
  );
  return { offset, length, bytes };
}

/** Returns whether there are checksums of the ranges. */
function readMap(bytes: Buffer, { blocks }: MappedFile): boolean {
  const map = new Cursor(bytes);
  demand(map.text(8) === "MFDRAMAP", "the map has another magic");
  const [version, count, kind, rangeBytes] = [map.u32(), map.u32(), map.u32(), map.u32()];
  demand(version === 1 && rangeBytes === RANGE, `the map has version ${version}, ranges of ${rangeBytes}`);
  demand(kind === 0 || kind === 1, `the map has checksum_kind ${kind}`);
  agree("the map's blocks", count, blocks.length);
  for (const { name, bytes, bitmapOffset, pagesOffset, present } of blocks) {
    const record = [map.u64(), map.u64(), map.u64(), map.u64(), map.u64()];
    const found = [bytes.length, PAGE, bitmapOffset, pagesOffset, present.filter(Boolean).length];
    agree(`the map's record of "${name}"`, record.join(), found.join());
  }
  agree("map_length", bytes.length, map.at);
  return kind === 1;
}

/** All of the stream but the pages and the space before them. */
function streamPieces(file: Buffer, base: number, end: number, blocks: readonly MappedBlock[]): Buffer[] {
  const pieces: Buffer[] = [];
  let from = base;
  for (const { bytes, present, bitmapOffset, pagesOffset } of blocks) {
    pieces.push(file.subarray(from, bitmapOffset + Math.ceil(present.length / 64) * 8));
    from = pagesOffset + bytes.length;
  }
  return [...pieces, file.subarray(from, end)];
}

function readSums(bytes: Buffer, blocks: readonly MappedBlock[]): void {
  const sums = new Cursor(bytes);
  for (const { name, bytes: ram, present } of blocks) {
    for (let start = 0; start < ram.length; start += RANGE) {
      const pages: Buffer[] = [];
      for (let at = start; at < Math.min(start + RANGE, ram.length); at += PAGE) {
        if (present[at / PAGE]) pages.push(ram.subarray(at, at + PAGE));
      }
      const sum = pages.length === 0 ? 0 : crc32(pages);
      agree(`the checksum of the range at ${start} of "${name}"`, sums.u32(), sum);
    }
  }
  agree("sums_length", bytes.length, sums.at);
}

function readMetadata(bytes: Buffer, stream: MappedFile): Readonly<Record<string, unknown>> {
  const metadata = JSON.parse(bytes.toString("utf8")) as Record<string, unknown>;
  const wanted: Readonly<Record<string, unknown>> = {
    ...{ multifdChannels: 0, compression: null, needsZeroedRam: true, pageSize: PAGE },
    ...{ machine: stream.machine, capabilities: stream.capabilities, devices: stream.devices },
    ramBlocks: stream.blocks.map(({ name, bytes }) => ({ name, usedLength: bytes.length })),
  };
  for (const [field, value] of Object.entries(wanted)) {
    agree(`the metadata's ${field}`, JSON.stringify(metadata[field]), JSON.stringify(value));
  }
  return metadata;
}

function padded(offset: number): number {
  return Math.ceil(offset / 4096) * 4096;
}

function agree(what: string, stored: unknown, found: unknown): void {
  demand(stored === found, `${what}: ${stored} stands there, but it must be ${found}`);
}
