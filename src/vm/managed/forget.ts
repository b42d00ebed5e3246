import fs from "node:fs";
import { refuseAwaited } from "../../control/instant/refuse-awaited.ts";
import { ioError } from "../../io/file-io.ts";
import { flushDirectoryOf } from "../../io/image-target/durability.ts";
import { refuseInUse } from "../../io/image-target/in-use.ts";
import type { ManagedPlace } from "./directory.ts";

/**
 * Removes a VM's managed image, in whatever state it is: what the user asked to forget is gone, also after a power failure.
 * @throws MultifdError TARGET_BUSY (a VM that was resumed from it still needs it), IO
 */
export async function forgetImage({ image, resuming }: ManagedPlace): Promise<void> {
  for (const file of [image, resuming]) {
    // Where only the user can know whether that VM is gone, asking for this says so.
    await refuseAwaited({ image: file, force: true });
    refuseInUse(file);
  }
  try {
    fs.rmSync(image, { force: true });
    fs.rmSync(resuming, { force: true });
    flushDirectoryOf(image);
  } catch (error) {
    throw ioError(error, `removing ${image}`);
  }
}
