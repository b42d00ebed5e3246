import fs from "node:fs";
import { isDeepStrictEqual, promisify } from "node:util";
import { MultifdError } from "../../errors.ts";
import { alignUp, isAligned } from "../../formats/image/align.ts";
import { damaged } from "../../formats/image/damage.ts";
import {
  decodeMark,
  encodeMark,
  isMark,
  MARK_BYTES,
  type MarkedImage,
  markOffset,
  openMark,
  type ResumedMark,
} from "../../formats/mapped-ram/resumed.ts";
import { ioError, readAligned, writeAligned } from "../../io/file-io.ts";
import { lockForUse, unguard } from "../instant/guard-image.ts";
import type { MappedContents } from "./contents.ts";
import type { OpenFile } from "./open.ts";

/**
 * What the mark's page says. "unreadable": something that is no whole mark of this image, or one of a later version, stands
 * there; such an image counts as resumed.
 */
export type FoundMark = ResumedMark | "unreadable" | null;

/** What of an opened image tells where its mark goes. */
export interface Markable {
  readonly stream: Pick<MappedContents["stream"], "end">;
  readonly seal: Pick<NonNullable<MappedContents["seal"]>, "imageUuid" | "imageEnd"> | null;
}

interface MarkPlace {
  readonly offset: number;
  readonly image: MarkedImage;
}

/** In a sealed image a page is reserved. Where there is no seal, the mark is added behind the end, where QEMU does not look. */
function placeOf({ stream, seal }: Markable): MarkPlace {
  const uuid = seal?.imageUuid ?? null;
  return {
    offset: seal === null ? alignUp(stream.end) : markOffset(seal),
    image: { uuid, streamEnd: stream.end },
  };
}

/**
 * Where a file without a seal ended as QEMU left it: a mark may have been added since.
 * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION (a mark that cannot be read), IO
 */
export async function endOfUnsealed({ fd, bytes }: OpenFile, base: number): Promise<number> {
  const at = bytes - MARK_BYTES;
  if (at < base || !isAligned(at)) return bytes;
  const page = await readAligned(fd, at, MARK_BYTES);
  if (!isMark(page)) return bytes;
  const { image } = openMark(page);
  if (image.uuid === null && alignUp(image.streamEnd) === at) return image.streamEnd;
  throw damaged(
    `file offset ${bytes}`,
    "the file ends with the mark of an instant restore, not with a footer",
    {
      offset: bytes,
    },
  );
}

/**
 * The mark of an opened image; null: it was never resumed.
 * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION (a mark that cannot be read), IO
 */
export async function readMark(fd: number, contents: Markable): Promise<ResumedMark | null> {
  const { offset, image } = placeOf(contents);
  if (contents.seal === null && fs.fstatSync(fd).size < offset + MARK_BYTES) return null;
  return decodeMark(await readAligned(fd, offset, MARK_BYTES), image);
}

/** The same, where a mark that cannot be read has to be told from none, and is not the end of it. Throws IO. */
export async function findMark(fd: number, contents: Markable): Promise<FoundMark> {
  try {
    return await readMark(fd, contents);
  } catch (error) {
    const code = error instanceof MultifdError ? error.code : null;
    if (code === "IMAGE_DAMAGED" || code === "UNSUPPORTED_VERSION") return "unreadable";
    throw error;
  }
}

/**
 * Writes down that the VM is about to run on from this image. When this resolves, that is on stable storage; of two who try, one
 * does it. The exclusive lock of the image stays with `fd`.
 * @param fd the image, open for reading
 * @param expected what the caller found; another restore may have been quicker
 * @throws MultifdError TARGET_BUSY, VM_RAN_ON, TARGET_REFUSED (no seal, and no regular file), READ_ONLY, NO_SPACE, IO
 */
export async function writeMark(
  fd: number,
  contents: Markable,
  mark: ResumedMark,
  { image, expected }: { readonly image: string; readonly expected: FoundMark },
): Promise<void> {
  lockForUse(fd, image);
  if (!isDeepStrictEqual(await findMark(fd, contents), expected)) {
    const text = `another restore has resumed the VM in ${image} in this moment`;
    throw new MultifdError("VM_RAN_ON", text, {});
  }
  // Before the first mark it would be somebody else's.
  if (expected !== null) unguard(fd, image);
  try {
    await putMark(fd, contents, mark, image);
  } catch (error) {
    if (expected === null) await unmark(fd, contents, image).catch(() => undefined);
    throw error;
  }
}

/** QEMU has all of the image, and nothing depends on it any more. Throws MultifdError as writeMark. */
export async function completeMark(
  fd: number,
  contents: Markable,
  { image, completedMs }: { readonly image: string; readonly completedMs: number },
): Promise<void> {
  const mark = await readMark(fd, contents);
  if (mark === null) throw new MultifdError("INTERNAL", `${image} was never resumed`, {});
  unguard(fd, image);
  await putMark(fd, contents, { ...mark, completedMs }, image);
}

/** Takes the mark back: the VM has certainly not run. Throws MultifdError READ_ONLY, IO. */
export async function eraseMark(fd: number, contents: Markable, image: string): Promise<void> {
  unguard(fd, image);
  await unmark(fd, contents, image);
}

async function unmark(fd: number, contents: Markable, image: string): Promise<void> {
  const { offset } = placeOf(contents);
  await changing(fd, image, async (writable) => {
    if (contents.seal === null) fs.ftruncateSync(writable, contents.stream.end);
    else await writeAligned(writable, new Uint8Array(MARK_BYTES), offset);
  });
}

/**
 * Sees that an image can be marked, which is better known before a QEMU has begun to load it.
 * @throws MultifdError TARGET_REFUSED (no seal, and no regular file), READ_ONLY
 */
export function refuseUnmarkable(fd: number, contents: Markable, image: string): void {
  refusePlaceless(fd, contents, image);
  fs.closeSync(openForWriting(fd, image));
}

function refusePlaceless(fd: number, { seal }: Markable, image: string): void {
  if (seal !== null || fs.fstatSync(fd).isFile()) return;
  const text = `${image} has no seal of multifd-helper and is no regular file, so that there is no place to write down that its VM was resumed: convert it, or copy it to a file`;
  throw new MultifdError("TARGET_REFUSED", text, {});
}

async function putMark(fd: number, contents: Markable, mark: ResumedMark, image: string): Promise<void> {
  refusePlaceless(fd, contents, image);
  const place = placeOf(contents);
  await changing(fd, image, (writable) =>
    writeAligned(writable, encodeMark(mark, place.image), place.offset),
  );
}

const fsync = promisify(fs.fsync);

/** Changes an image that is open for reading, and flushes it, its length too. */
async function changing(
  fd: number,
  image: string,
  change: (writable: number) => Promise<void>,
): Promise<void> {
  const writable = openForWriting(fd, image);
  try {
    await change(writable);
    await fsync(writable);
  } catch (error) {
    throw ioError(error, `marking ${image} as resumed`);
  } finally {
    fs.closeSync(writable);
  }
}

/** The very file that was checked, whatever its name stands for by now. */
function openForWriting(fd: number, image: string): number {
  try {
    return fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDWR);
  } catch (error) {
    const { code, details } = ioError(error, `marking ${image} as resumed`);
    const text = `an instant restore writes into its image that the VM runs on, and ${image} cannot be written (${details.errno}): check its owner, mode, mount and flags (lsattr)`;
    throw new MultifdError(code, text, details, error);
  }
}
