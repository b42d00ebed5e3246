import { MultifdError } from "../errors.ts";
import { SUPERBLOCK_BYTES, type Superblock } from "../formats/image/model.ts";
import { type OpenedImage, openImage } from "../formats/image/open.ts";
import { sealedRegions } from "../formats/image/regions.ts";
import { decodeSuperblock } from "../formats/image/superblock.ts";
import { readAligned } from "../io/file-io.ts";
import { openSource, type Source } from "../io/source.ts";
import { namingImage } from "./image-errors.ts";
import type { DirectIo, Log, RunOptions } from "./options.ts";
import { SILENT } from "./silent-log.ts";

/** Works with a sealed image, of which all but the channels' data is checked, and closes it afterwards. */
export function withSealedImage<T>(
  options: RunOptions,
  work: (source: Source, image: OpenedImage) => Promise<T>,
): Promise<T> {
  const { image, offset = 0, directIo = "auto", log = SILENT } = options;
  return namingImage(image, async () => {
    const { source, superblock } = await openFile(image, offset, directIo, log);
    try {
      return await work(source, await readSealed(source, superblock));
    } finally {
      source.close();
    }
  });
}

/** Opens the file and reads its superblock. The caller closes the source. Throws NOT_AN_IMAGE and the like. */
export async function openFile(
  image: string,
  offset: number,
  directIo: DirectIo,
  log: Log,
): Promise<{ source: Source; superblock: Superblock }> {
  const source = await openSource({ image, offset, directIo, onNote: (note) => log.warn({}, note) });
  try {
    return { source, superblock: await readSuperblock(source, image) };
  } catch (error) {
    source.close();
    throw error;
  }
}

/** Reads and checks everything but the channels' data. Throws NOT_SEALED, IMAGE_DAMAGED, UNSUPPORTED_VERSION. */
export async function readSealed(source: Source, superblock: Superblock): Promise<OpenedImage> {
  const regions = sealedRegions(superblock, source.available);
  const metadata = await readAligned(
    source.fd,
    source.base + regions.metadata.offset,
    regions.metadata.length,
  );
  const index = await readAligned(source.fd, source.base + regions.index.offset, regions.index.length);
  return openImage(superblock, { metadata, index }, source.available);
}

async function readSuperblock(source: Source, image: string): Promise<Superblock> {
  if (source.available < SUPERBLOCK_BYTES) {
    const where = source.base === 0 ? "" : ` at offset ${source.base}`;
    throw new MultifdError(
      "NOT_AN_IMAGE",
      `${image} has no multifd-helper image${where}: there are only ${source.available} bytes`,
      { available: source.available },
    );
  }
  return decodeSuperblock(await readAligned(source.fd, source.base, SUPERBLOCK_BYTES));
}
