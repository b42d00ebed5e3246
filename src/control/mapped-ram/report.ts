import { FOOTER_BYTES, footerOffset, TRAILER_VERSION } from "../../formats/mapped-ram/footer.ts";
import { type MappedStream, streamSpans } from "../../formats/mapped-ram/model.ts";
import { MARK_BYTES, markOffset } from "../../formats/mapped-ram/resumed.ts";
import type { Source } from "../../io/source.ts";
import { reportMark } from "../instant/ran-on.ts";
import type { MappedBlockReport, MappedRamReport, UsedRange } from "../reports.ts";
import { contentsOf } from "./contents.ts";
import { type MappedImage, openFileOf, openMapped, readFooter } from "./open.ts";
import { endOfUnsealed, findMark } from "./resumed.ts";
import { sumStream, walkStream } from "./stream.ts";

/**
 * Says what a mapped-ram file is; its pages are not read. One without a seal of ours is described from its stream alone.
 * @throws MultifdError NOT_AN_IMAGE, IMAGE_DAMAGED, UNSUPPORTED_VERSION, IO
 */
export async function inspectMapped(path: string, source: Source): Promise<MappedRamReport> {
  const file = openFileOf(source);
  const footer = await readFooter(file, source.base);
  if (footer?.seal) {
    const image = await openMapped(file, source.base);
    const resumed = reportMark(await findMark(file.fd, contentsOf(image)));
    return { ...sealedReport(path, source.base, image), resumed };
  }
  const end = footer === null ? await endOfUnsealed(file, source.base) : footerOffset(file.bytes);
  const stream = await walkStream(file.fd, source.base, end);
  const { presentPages } = await sumStream(file.fd, stream);
  return {
    ...streamFacts(path, stream, presentPages),
    sealed: false,
    seal: footer === null ? "none of multifd-helper" : "never finished",
    imageUuid: footer?.uuid ?? null,
    created: footer === null ? null : new Date(footer.createdMs).toISOString(),
    bytes: null,
    metadata: null,
    checksum: "none",
    resumed: footer === null ? reportMark(await findMark(file.fd, { stream, seal: null })) : null,
    ranges: streamRanges(stream),
  };
}

function sealedReport(
  path: string,
  base: number,
  { footer, trailer, stream }: MappedImage,
): Omit<MappedRamReport, "resumed"> {
  const { seal, metadata, map } = trailer;
  const present = map.blocks.map(({ presentPages }) => presentPages);
  const regions = Object.entries({ map: seal.map, metadata: seal.metadata, checksums: seal.sums });
  return {
    ...streamFacts(path, stream, present),
    sealed: true,
    seal: "sealed",
    imageUuid: footer.uuid,
    created: new Date(footer.createdMs).toISOString(),
    bytes: seal.imageEnd - base,
    metadata,
    checksum: map.checksums ? "crc32" : "none",
    ranges: [
      ...streamRanges(stream),
      ...regions.flatMap(([what, { offset, length }]) => (length === 0 ? [] : [{ what, offset, length }])),
      { what: "mark", offset: markOffset(seal), length: MARK_BYTES },
      { what: "footer", offset: seal.imageEnd - FOOTER_BYTES, length: FOOTER_BYTES },
    ],
  };
}

type StreamFacts = Pick<
  MappedRamReport,
  | "path"
  | "format"
  | "formatVersion"
  | "base"
  | "dataBytes"
  | "machine"
  | "pageSize"
  | "capabilities"
  | "blocks"
>;

function streamFacts(path: string, stream: MappedStream, presentPages: readonly number[]): StreamFacts {
  const { base, machine, pageSize, capabilities } = stream;
  const blocks = stream.blocks.map(
    ({ name, usedLength, pagesOffset }, n): MappedBlockReport => ({
      name,
      usedLength,
      pagesOffset,
      presentPages: presentPages[n] ?? 0,
    }),
  );
  const pages = blocks.reduce((sum, block) => sum + block.presentPages * pageSize, 0);
  const own = streamSpans(stream).reduce((sum, { length }) => sum + length, 0);
  return {
    ...{ path, format: "mapped-ram", formatVersion: TRAILER_VERSION, base, dataBytes: pages + own },
    ...{ machine, pageSize, capabilities, blocks },
  };
}

/** The stream's own bytes, and each pages region as a whole: which of its pages count, its bitmap says. */
function streamRanges(stream: MappedStream): UsedRange[] {
  const own = streamSpans(stream).map((span) => ({ what: "stream", ...span }));
  const pages = stream.blocks.map(({ name, pagesOffset, usedLength }) => {
    return { what: `pages of ${name}`, offset: pagesOffset, length: usedLength };
  });
  return [...own, ...pages].sort((a, b) => a.offset - b.offset);
}
