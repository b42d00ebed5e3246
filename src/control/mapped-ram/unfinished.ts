import { MultifdError } from "../../errors.ts";
import { lacksMagic } from "../../formats/mapped-ram/stream.ts";
import type { Source } from "../../io/source.ts";
import { readFooter } from "./open.ts";

/**
 * Refuses what a save that was interrupted left in place of an image, for a file that begins as none: a stream without its
 * magic, which is written last of all, or on a device the footer that was written first. What was interrupted in a regular
 * file before any of the stream was written cannot be told from a file of anybody.
 * @param head what stands at source.base
 * @throws MultifdError NOT_SEALED
 */
export async function refuseUnfinished(source: Source, head: Uint8Array): Promise<void> {
  if (lacksMagic(head)) throw unfinished("the magic of QEMU's stream, which is written last, is not there");
  if (await isMarked(source)) throw unfinished("its footer says that it is still being written");
}

async function isMarked({ fd, base, available }: Source): Promise<boolean> {
  try {
    return (await readFooter({ fd, bytes: base + available }, base))?.seal === null;
  } catch {
    // Damaged, or newer than this program: its reader says so.
    return false;
  }
}

function unfinished(why: string): MultifdError {
  return new MultifdError("NOT_SEALED", `this mapped-ram image was never finished: ${why}; save again`, {});
}
