import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { encodeFooter, FOOTER_BYTES } from "../../src/formats/mapped-ram/footer.ts";
import type { MappedStream } from "../../src/formats/mapped-ram/model.ts";
import { streamSpans } from "../../src/formats/mapped-ram/model.ts";
import { MappedStreamWalker } from "../../src/formats/mapped-ram/stream.ts";
import { buildTrailer } from "../../src/formats/mapped-ram/trailer.ts";
import { exampleMetadata } from "./example-image.ts";
import { type MappedBlockSpec, mappedFile } from "./mapped-file.ts";

const PAGE = 4096;
const RANGE_PAGES = 16;

export interface SealedMapped {
  readonly bytes: Buffer;
  readonly stream: MappedStream;
  /** File offset of a page. */
  offsetOf(block: string, page: number): number;
}

/** A sealed mapped-ram image of a guest with these blocks, for tests that look at its pages. */
export function sealedMapped(specs: readonly MappedBlockSpec[]): SealedMapped {
  const file = mappedFile({ blocks: specs });
  const walker = new MappedStreamWalker(0);
  while (walker.wanted < file.length) walker.push(file.subarray(walker.wanted, walker.wanted + 2 ** 20));
  const stream = walker.finish();
  const own = streamSpans(stream).map(({ offset, length }) => file.subarray(offset, offset + length));
  const place = { base: 0, end: stream.end, crc32: crc32(Buffer.concat(own)) };
  const blocks = stream.blocks.map((block, number) => {
    return { ...block, presentPages: Object.keys(specs[number]?.pages ?? {}).length };
  });
  const metadata = {
    ...exampleMetadata(),
    ...{ multifdChannels: 0, compression: null, barrierMode: null, capabilities: ["mapped-ram"] },
    ramBlocks: blocks.map(({ name, usedLength }) => ({ name, usedLength })),
    evidence: { verdict: "complete", decidedBy: "qmp", reasons: [] } as const,
  };
  const identity = { uuid: "c0ffee00-0000-4000-8000-000000000003", createdMs: 0 };
  const trailer = buildTrailer(
    identity,
    place,
    metadata,
    { checksums: true, blocks },
    sumsOf(specs, stream, file),
  );
  const { imageEnd } = trailer.footer.seal;
  const image = Buffer.alloc(imageEnd);
  file.copy(image);
  for (const piece of trailer.pieces) image.set(piece.bytes, piece.offset);
  encodeFooter(trailer.footer).copy(image, imageEnd - FOOTER_BYTES);
  const offsetOf = (name: string, page: number): number =>
    (blocks.find((block) => block.name === name)?.pagesOffset ?? 0) + page * PAGE;
  return { bytes: image, stream, offsetOf };
}

/** CRC-32 of each range's present pages. */
function sumsOf(specs: readonly MappedBlockSpec[], { blocks }: MappedStream, file: Buffer): Buffer {
  const sums = blocks.flatMap(({ usedLength, pagesOffset }, number) => {
    const pages = usedLength / PAGE;
    return Array.from({ length: Math.ceil(pages / RANGE_PAGES) }, (_, range) => {
      let crc = 0;
      for (let page = range * RANGE_PAGES; page < Math.min(pages, (range + 1) * RANGE_PAGES); page++) {
        if (specs[number]?.pages[page] === undefined) continue;
        crc = crc32(file.subarray(pagesOffset + page * PAGE, pagesOffset + (page + 1) * PAGE), crc);
      }
      return crc;
    });
  });
  const bytes = Buffer.alloc(4 * sums.length);
  for (const [n, sum] of sums.entries()) bytes.writeUInt32BE(sum, 4 * n);
  return bytes;
}
