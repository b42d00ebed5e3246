import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import type { ImageMetadata } from "../../src/formats/image/model.ts";
import { encodeFooter, FOOTER_BYTES } from "../../src/formats/mapped-ram/footer.ts";
import type { RamMapTable } from "../../src/formats/mapped-ram/map.ts";
import { type BuiltTrailer, buildTrailer } from "../../src/formats/mapped-ram/trailer.ts";
import { exampleMetadata } from "./example-image.ts";
import { mappedFile } from "./mapped-file.ts";

/*
 * The worked example of docs/formats/mapped-ram.md: a guest with 20 pages of RAM, of which 0, 1 and 17 are not zero.
 * Byte for byte the same on every run.
 */

const PAGE = 4096;
const PAGES_AT = 0x100000;

export interface ExampleMapped {
  readonly bytes: Buffer;
  readonly metadata: ImageMetadata;
  readonly map: RamMapTable;
  /** Behind QEMU's last byte. */
  readonly streamEnd: number;
  readonly trailer: BuiltTrailer;
}

/** @param more metadata besides those of the page */
export function exampleMapped(more: Partial<ImageMetadata> = {}): ExampleMapped {
  const stream = mappedFile({
    blocks: [{ name: "mem", bytes: 20 * PAGE, pages: { 0: 0x5a, 1: 0x5b, 17: 0xa5 } }],
  });
  const bitmapOffset = stream.indexOf(Buffer.from([0x03, 0, 0x02, 0, 0, 0, 0, 0]));
  const block = {
    usedLength: 20 * PAGE,
    pageSize: PAGE,
    bitmapOffset,
    pagesOffset: PAGES_AT,
    presentPages: 3,
  };
  const map: RamMapTable = { checksums: true, blocks: [block] };
  const sums = Buffer.alloc(8);
  sums.writeUInt32BE(crc32(stream.subarray(PAGES_AT, PAGES_AT + 2 * PAGE)), 0);
  sums.writeUInt32BE(crc32(stream.subarray(PAGES_AT + 17 * PAGE, PAGES_AT + 18 * PAGE)), 4);
  const own = [stream.subarray(0, bitmapOffset + 8), stream.subarray(PAGES_AT + 20 * PAGE)];
  const metadata: ImageMetadata = {
    ...exampleMetadata(),
    ...{ multifdChannels: 0, compression: null, barrierMode: null, capabilities: ["mapped-ram"] },
    ramBlocks: [{ name: "mem", usedLength: 20 * PAGE }],
    evidence: { verdict: "complete", decidedBy: "qmp", reasons: [] },
    ...more,
  };
  const identity = { uuid: "c0ffee00-0000-4000-8000-000000000002", createdMs: Date.UTC(2026, 0, 1) };
  const place = { base: 0, end: stream.length, crc32: crc32(Buffer.concat(own)) };
  const trailer = buildTrailer(identity, place, metadata, map, sums);
  const { imageEnd } = trailer.footer.seal;
  const bytes = Buffer.alloc(imageEnd);
  stream.copy(bytes);
  for (const piece of trailer.pieces) bytes.set(piece.bytes, piece.offset);
  encodeFooter(trailer.footer).copy(bytes, imageEnd - FOOTER_BYTES);
  return { bytes, metadata, map, streamEnd: stream.length, trailer };
}
