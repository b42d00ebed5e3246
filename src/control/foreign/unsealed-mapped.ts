import { streamSpans } from "../../formats/mapped-ram/model.ts";
import type { Source } from "../../io/source.ts";
import { readPages } from "../mapped-ram/pages.ts";
import { openFileOf } from "../mapped-ram/report.ts";
import { sumStream, walkStream } from "../mapped-ram/stream.ts";
import { Meter } from "../meter.ts";
import type { RunOptions } from "../options.ts";
import type { VerifyReport } from "../reports.ts";
import { SILENT } from "../silent-log.ts";

/**
 * Walks the stream of a mapped-ram file that has no seal of ours, and sees that no page of it lies in a hole. Nothing in it
 * is checksummed.
 * @throws MultifdError NOT_AN_IMAGE, UNSUPPORTED_VERSION, IMAGE_DAMAGED, IO, CANCELLED
 */
export async function verifyUnsealed(
  options: RunOptions,
  source: Source,
): Promise<Omit<VerifyReport, "path">> {
  const meter = new Meter();
  const { fd, bytes: end } = openFileOf(source);
  const stream = await walkStream(fd, source.base, end);
  const { presentPages } = await sumStream(fd, stream);
  const { ranges, bytes } = await readPages(options, fd, stream.blocks, presentPages, {
    kind: "holes",
    saving: false,
  });
  if (stream.undecided.length > 0) {
    const why = stream.undecided.join("; ");
    (options.log ?? SILENT).warn({}, `not all of QEMU's stream in ${options.image} was followed: ${why}`);
  }
  const own = streamSpans(stream).reduce((sum, { length }) => sum + length, 0);
  return { checked: "structure only", blocks: ranges, bytes: bytes + own, elapsedMs: meter.elapsedMs };
}
