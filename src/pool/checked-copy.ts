import { damaged } from "../formats/image/damage.ts";
import { crc32 } from "../io/crc32.ts";
import { readSpan } from "../io/file-io.ts";
import type { CheckedCopy } from "./messages.ts";

/** How much of the stream's own bytes is read at once. */
const COPY_BYTES = 1024 * 1024;

/**
 * Reads a span of the stream's own bytes, piece by piece. Before the last piece is handed out, all of it has been compared
 * with its checksum: no damage ever loads to its end.
 * @throws MultifdError IMAGE_DAMAGED, IO
 */
export async function* checkedCopy(
  fd: number,
  { offset, length, crc32: wanted }: CheckedCopy,
): AsyncGenerator<Uint8Array, void, undefined> {
  let crc = 0;
  for (let at = 0; at < length; at += COPY_BYTES) {
    const bytes = await readSpan(fd, offset + at, Math.min(COPY_BYTES, length - at));
    crc = crc32(bytes, crc);
    if (at + bytes.length === length && crc !== wanted) {
      throw damaged(
        `QEMU's stream from byte ${offset} to ${offset + length}`,
        "it is not what it was when the restore began",
        { offset },
      );
    }
    yield bytes;
  }
}
