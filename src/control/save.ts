import type { CompletedEvent } from "./events.ts";
import type { SaveOptions } from "./options.ts";
import { runSave } from "./save-run.ts";

/**
 * Receives a VM from a QEMU that migrates to `listen` and writes it to `image`.
 * @returns once the image is on disk, sealed and at its name
 * @throws MultifdError; then no image was made, and an earlier one at a path is as it was
 */
export function save(options: SaveOptions): Promise<CompletedEvent> {
  return runSave(options);
}
