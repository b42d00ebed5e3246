import type { Source } from "../io/source.ts";
import { throwIfAborted } from "./cancellation.ts";
import { checkImage } from "./check-image.ts";
import { kindOfFile } from "./foreign/kind.ts";
import { verifyLibvirt } from "./foreign/libvirt.ts";
import { verifyQemuStream } from "./foreign/qemu-stream.ts";
import { verifyUnsealed } from "./foreign/unsealed-mapped.ts";
import { namingImage } from "./image-errors.ts";
import { openFileOf, readFooter } from "./mapped-ram/open.ts";
import { verifyMapped } from "./mapped-ram/verify.ts";
import { openFile, withFile, withSealedImage } from "./opened-image.ts";
import type { VerifyOptions } from "./options.ts";
import type { VerifyReport } from "./reports.ts";
import { SILENT } from "./silent-log.ts";
import { checkRunOptions } from "./validate.ts";

/**
 * Reads a whole image in parallel and checks every checksum and the structure of its streams, without a VM. Of what others
 * wrote, in which nothing is checksummed, the structure is checked.
 * @throws MultifdError IMAGE_DAMAGED with the place of the first damage found, NOT_SEALED, NOT_AN_IMAGE, STREAM_UNDECIDED, IO …
 */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  checkRunOptions(options);
  throwIfAborted(options.signal);
  const path = options.image;
  const check = await foreignCheck(options);
  if (check !== null) return { path, ...(await checkForeign(options, check)) };
  return withSealedImage<VerifyReport>(
    options,
    async (source, image) => ({ path, ...(await checkImage(options, source, image)) }),
    async (source, image) => ({ path, ...(await verifyMapped(options, source.fd, image)) }),
  );
}

type Verified = Omit<VerifyReport, "path">;
/** Checks what somebody else wrote. */
type Check = (options: VerifyOptions, source: Source, head: Uint8Array) => Promise<Verified>;

/** Looks what a file is. Answers null when it has, or ought to have, a seal of ours. */
function foreignCheck({ image, offset = 0, directIo = "auto" }: VerifyOptions): Promise<Check | null> {
  return namingImage(image, async () => {
    const { source, head } = await openFile(image, offset, directIo, SILENT);
    try {
      switch (await kindOfFile(source, head)) {
        case "libvirt":
          return verifyLibvirt;
        case "qemu-stream":
          return verifyQemuStream;
        case "mapped-ram":
          return (await readFooter(openFileOf(source), source.base)) === null ? verifyUnsealed : null;
        case "stream":
          return null;
      }
    } finally {
      source.close();
    }
  });
}

function checkForeign(options: VerifyOptions, check: Check): Promise<Verified> {
  return withFile(options, async (source, head, notBusy) => {
    notBusy();
    return await check(options, source, head);
  });
}
