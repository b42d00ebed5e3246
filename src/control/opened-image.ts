import { MultifdError } from "../errors.ts";
import { SUPERBLOCK_BYTES, type Superblock } from "../formats/image/model.ts";
import { type OpenedImage, openImage } from "../formats/image/open.ts";
import { sealedRegions } from "../formats/image/regions.ts";
import { decodeSuperblock } from "../formats/image/superblock.ts";
import { readAligned } from "../io/file-io.ts";
import { openSource, type Source } from "../io/source.ts";
import type { DirectIo, Log } from "./options.ts";

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
