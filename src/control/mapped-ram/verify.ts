import { streamSpans } from "../../formats/mapped-ram/model.ts";
import { Meter } from "../meter.ts";
import type { RunOptions } from "../options.ts";
import type { VerifyReport } from "../reports.ts";
import type { MappedImage } from "./open.ts";
import { readPages } from "./pages.ts";

/**
 * Reads all pages of an opened image and compares them with their checksums; without any, sees that none lies in a hole.
 * @throws MultifdError IMAGE_DAMAGED with the place of the first damage found, IO, CANCELLED
 */
export async function verifyMapped(
  options: RunOptions,
  fd: number,
  { trailer }: MappedImage,
): Promise<Omit<VerifyReport, "path">> {
  const meter = new Meter();
  const { map, blocks, seal } = trailer;
  const present = map.blocks.map(({ presentPages }) => presentPages);
  const { ranges, bytes } = await readPages(
    options,
    fd,
    blocks,
    present,
    map.checksums ? { kind: "compare", sumsOffset: seal.sums.offset } : { kind: "holes", saving: false },
  );
  const own = streamSpans({ ...seal, end: seal.streamEnd, blocks }).reduce(
    (sum, { length }) => sum + length,
    0,
  );
  return {
    checked: map.checksums ? "checksums and structure" : "structure only",
    blocks: ranges,
    bytes: bytes + own,
    elapsedMs: meter.elapsedMs,
  };
}
