import type { Source } from "../../io/source.ts";
import { openContents } from "../mapped-ram/contents.ts";
import { openFileOf } from "../mapped-ram/open.ts";
import { verifyMarked } from "../mapped-ram/verify.ts";
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
  const contents = await openContents(openFileOf(source), source.base);
  const verified = await verifyMarked(options, source.fd, contents);
  const { undecided } = contents.stream;
  if (undecided.length > 0) {
    const why = undecided.join("; ");
    (options.log ?? SILENT).warn({}, `not all of QEMU's stream in ${options.image} was followed: ${why}`);
  }
  return verified;
}
