import { throwIfAborted } from "./cancellation.ts";
import { checkImage } from "./check-image.ts";
import { verifyMapped } from "./mapped-ram/verify.ts";
import { withSealedImage } from "./opened-image.ts";
import type { VerifyOptions } from "./options.ts";
import type { VerifyReport } from "./reports.ts";
import { checkRunOptions } from "./validate.ts";

/**
 * Reads a whole image in parallel and checks every checksum and the structure of its streams, without a VM.
 * @throws MultifdError IMAGE_DAMAGED with the place of the first damage found, NOT_SEALED, NOT_AN_IMAGE, IO …
 */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  checkRunOptions(options);
  throwIfAborted(options.signal);
  const path = options.image;
  return withSealedImage<VerifyReport>(
    options,
    async (source, image) => ({ path, ...(await checkImage(options, source, image)) }),
    async (source, image) => ({ path, ...(await verifyMapped(options, source.fd, image)) }),
  );
}
