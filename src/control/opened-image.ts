import { MultifdError } from "../errors.ts";
import { SUPERBLOCK_BYTES, type Superblock } from "../formats/image/model.ts";
import { ImageOpener, type OpenedImage } from "../formats/image/open.ts";
import { magicOf } from "../formats/image/state-page.ts";
import { decodeSuperblock, MAGIC } from "../formats/image/superblock.ts";
import { padded, readAligned, readAt } from "../io/file-io.ts";
import { tryShare } from "../io/libc.ts";
import { alignedBuffer } from "../io/slab-arena.ts";
import { openSource, type Source } from "../io/source.ts";
import { kindOfFile } from "./foreign/kind.ts";
import { namingImage } from "./image-errors.ts";
import { type MappedContents, openContents } from "./mapped-ram/contents.ts";
import { findStream, type StreamPlace } from "./mapped-ram/find-stream.ts";
import { type MappedImage, openFileOf, openMapped } from "./mapped-ram/open.ts";
import type { DirectIo, Log, RunOptions } from "./options.ts";
import { SILENT } from "./silent-log.ts";

/**
 * Works with a sealed image, of which all but the channels' data or the pages is checked, and closes it afterwards. No save
 * writes over it meanwhile: without checksums nothing else would tell a mixture of two images.
 * @param mapped what to do with one in QEMU's mapped-ram format; left out, such a one is refused
 */
export function withSealedImage<T>(
  options: RunOptions,
  work: (source: Source, image: OpenedImage) => Promise<T>,
  mapped?: (source: Source, image: MappedImage) => Promise<T>,
): Promise<T> {
  return withFile(options, async (source, head, notBusy) => {
    if ((await kindOfFile(source, head)) === "stream") {
      const opened = await readSealed(source, decodeSuperblock(head));
      notBusy();
      return await work(source, opened);
    }
    if (mapped !== undefined) {
      const opened = await openMapped(openFileOf(source), source.base);
      notBusy();
      return await mapped(source, opened);
    }
    throw new MultifdError(
      "NOT_AN_IMAGE",
      "this file begins as a migration stream of QEMU (5145564d), which QEMU reads itself: restore a mapped-ram image with --qmp, or with -- and QEMU's command line",
    );
  });
}

/**
 * The same for whatever can be restored: a mapped-ram file need not have a seal of ours, may begin at any byte, and may
 * be libvirt's, whose format is called sparse.
 */
export function withRestorable<T>(
  options: RunOptions,
  streams: (source: Source, image: OpenedImage) => Promise<T>,
  mapped: (source: Source, contents: MappedContents) => Promise<T>,
): Promise<T> {
  return withFile(options, async (source, head, notBusy) => {
    const place = await streamPlace(source, head, options.offset ?? 0);
    if (place === null) {
      const opened = await readSealed(source, decodeSuperblock(head));
      notBusy();
      return await streams(source, opened);
    }
    const contents = await openContents(openFileOf(source), place.base);
    notBusy();
    return await mapped(source, { ...contents, uuid: contents.uuid ?? place.uuid });
  });
}

async function streamPlace(source: Source, head: Uint8Array, offset: number): Promise<StreamPlace | null> {
  if (magicOf(head) === MAGIC && offset === source.base) return null;
  return await findStream(source, head, offset);
}

/** Opens the file, takes care that no save writes over it meanwhile, and closes it. `notBusy` throws TARGET_BUSY. */
export function withFile<T>(
  { image, offset = 0, directIo = "auto", log = SILENT }: RunOptions,
  work: (source: Source, head: Uint8Array, notBusy: () => void) => Promise<T>,
): Promise<T> {
  return namingImage(image, async () => {
    const { source, head } = await openFile(image, offset, directIo, log);
    try {
      const shared = tryShare(source.fd);
      const notBusy = (): void => {
        if (shared) return;
        const text = `a save is about to write over ${image}, or a VM that was resumed from it still needs it: wait for that, or use another image`;
        throw new MultifdError("TARGET_BUSY", text, { image });
      };
      return await work(source, head, notBusy);
    } finally {
      source.close();
    }
  });
}

/** An index may be half a GiB long; never more of it than this is held. */
const INDEX_PIECE = 1024 * 1024;

/** Opens the file and reads its first 4096 bytes. The caller closes the source. Throws NOT_AN_IMAGE when there are fewer. */
export async function openFile(
  image: string,
  offset: number,
  directIo: DirectIo,
  log: Log,
): Promise<{ source: Source; head: Uint8Array }> {
  const source = await openSource({ image, offset, directIo, onNote: (note) => log.warn({}, note) });
  try {
    return { source, head: await readHead(source, image) };
  } catch (error) {
    source.close();
    throw error;
  }
}

/** Reads and checks everything but the channels' data. Throws NOT_SEALED, IMAGE_DAMAGED, UNSUPPORTED_VERSION. */
export async function readSealed(source: Source, superblock: Superblock): Promise<OpenedImage> {
  const opener = new ImageOpener(superblock, source.available);
  const { metadata, index } = opener.regions;
  const start = source.base + index.offset;
  const buffer = alignedBuffer(Math.min(INDEX_PIECE, padded(index.length)));
  for (let at = 0; at < index.length; at += buffer.length) {
    const length = Math.min(buffer.length, index.length - at);
    await readAt(source.fd, buffer.subarray(0, padded(length)), start + at);
    opener.pushIndex(buffer.subarray(0, length));
  }
  return opener.finish(await readAligned(source.fd, source.base + metadata.offset, metadata.length));
}

async function readHead(source: Source, image: string): Promise<Uint8Array> {
  if (source.available < SUPERBLOCK_BYTES) {
    const where = source.base === 0 ? "" : ` at offset ${source.base}`;
    throw new MultifdError(
      "NOT_AN_IMAGE",
      `${image} has no multifd-helper image${where}: there are only ${source.available} bytes`,
      { available: source.available },
    );
  }
  return readAligned(source.fd, source.base, SUPERBLOCK_BYTES);
}
