import { streamSpans } from "../../formats/mapped-ram/model.ts";
import { reportMark } from "../instant/ran-on.ts";
import { Meter } from "../meter.ts";
import type { RestoreOptions, RunOptions } from "../options.ts";
import type { VerifyReport } from "../reports.ts";
import { SILENT } from "../silent-log.ts";
import { teller } from "../telling.ts";
import { contentsOf, type MappedContents } from "./contents.ts";
import type { MappedImage } from "./open.ts";
import { readPages } from "./pages.ts";
import { readMark } from "./resumed.ts";

/**
 * Reads all pages of a sealed image and compares them with their checksums; without any, sees that none lies in a hole. Says
 * whether an instant restore let its VM run.
 * @throws MultifdError IMAGE_DAMAGED with the place of the first damage found, IO, CANCELLED
 */
export async function verifyMapped(
  options: RunOptions,
  fd: number,
  image: MappedImage,
): Promise<Omit<VerifyReport, "path">> {
  return await verifyMarked(options, fd, contentsOf(image));
}

/** The same for a file with or without a seal of ours. */
export async function verifyMarked(
  options: RunOptions,
  fd: number,
  contents: MappedContents,
): Promise<Omit<VerifyReport, "path">> {
  const resumed = reportMark(await readMark(fd, contents));
  const verified = await verifyContents(options, fd, contents);
  return resumed === null ? verified : { ...verified, resumed };
}

/**
 * What a restore reads of the pages before it begins: all of them with verify "first", and without checksums at least
 * whether any is missing, which would be sent as zeros. Warns of a file without a seal.
 * @throws MultifdError as verifyMapped
 */
export async function checkBeforehand(
  options: RunOptions & Pick<RestoreOptions, "verify">,
  fd: number,
  contents: MappedContents,
): Promise<void> {
  if (options.verify === "first" || contents.sumsOffset === null) {
    const verified = await verifyContents(options, fd, contents);
    if (options.verify === "first") teller(options)({ event: "verified", ...verified });
  }
  if (contents.seal !== null) return;
  const text = `${options.image} has no seal of multifd-helper: its structure is whole and no page is missing, but nothing is checksummed`;
  (options.log ?? SILENT).warn({}, text);
}

async function verifyContents(
  options: RunOptions,
  fd: number,
  { stream, presentPages, sumsOffset }: MappedContents,
): Promise<Omit<VerifyReport, "path" | "resumed">> {
  const meter = new Meter();
  const { ranges, bytes } = await readPages(
    options,
    fd,
    stream.blocks,
    presentPages,
    sumsOffset === null ? { kind: "holes", saving: false } : { kind: "compare", sumsOffset },
  );
  const own = streamSpans(stream).reduce((sum, { length }) => sum + length, 0);
  return {
    checked: sumsOffset === null ? "structure only" : "checksums and structure",
    blocks: ranges,
    bytes: bytes + own,
    elapsedMs: meter.elapsedMs,
  };
}
