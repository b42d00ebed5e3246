import { IndexDecoder } from "./index-decoder.ts";
import { checkAgreement, checkLayout } from "./layout.ts";
import { decodeMetadata } from "./metadata.ts";
import type { ImageIndex, ImageMetadata, Superblock } from "./model.ts";
import { RegionSum, type SealedRegions, sealedRegions } from "./regions.ts";

/** A sealed image whose every rule was checked; only the channels' data was not read yet. */
export interface OpenedImage {
  readonly superblock: Superblock;
  readonly metadata: ImageMetadata;
  readonly index: ImageIndex;
}

/**
 * Checks and decodes metadata and index, in the order of docs/formats/image.md, "Reading". Holds the metadata, which
 * are small, and takes the index piece by piece.
 *
 * Pushing throws nothing: what is wrong shows in finish(), the checksums first, for a damaged index breaks other
 * rules too.
 */
export class ImageOpener {
  /** Where to read. */
  readonly regions: SealedRegions;
  readonly #superblock: Superblock;
  readonly #availableBytes: number;
  readonly #indexSum: RegionSum;
  readonly #index: IndexDecoder;
  #indexFailed = false;

  /**
   * @param availableBytes bytes of the file from the base of the image on
   * @throws MultifdError NOT_SEALED, IMAGE_DAMAGED
   */
  constructor(superblock: Superblock, availableBytes: number) {
    this.#superblock = superblock;
    this.#availableBytes = availableBytes;
    this.regions = sealedRegions(superblock, availableBytes);
    this.#indexSum = new RegionSum("index", this.regions.index);
    this.#index = new IndexDecoder(this.regions.index);
  }

  /** Takes the next bytes of the index. */
  pushIndex(bytes: Uint8Array): void {
    this.#indexSum.push(bytes);
    if (this.#indexFailed) return;
    try {
      this.#index.push(bytes);
    } catch {
      this.#indexFailed = true; // finish() throws it again
    }
  }

  /**
   * To be called when the whole index was pushed.
   *
   * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION
   */
  finish(metadata: Uint8Array): OpenedImage {
    const metadataSum = new RegionSum("metadata", this.regions.metadata);
    metadataSum.push(metadata);
    metadataSum.check();
    this.#indexSum.check();
    const index = this.#index.finish();
    checkLayout(this.#superblock, index, this.#availableBytes);
    const decoded = decodeMetadata(metadata);
    checkAgreement(decoded, index);
    return { superblock: this.#superblock, metadata: decoded, index };
  }
}

/** Opens an image whose metadata and index are in memory. */
export function openImage(
  superblock: Superblock,
  bytes: Readonly<Record<keyof SealedRegions, Uint8Array>>,
  availableBytes: number,
): OpenedImage {
  const opener = new ImageOpener(superblock, availableBytes);
  opener.pushIndex(bytes.index);
  return opener.finish(bytes.metadata);
}
