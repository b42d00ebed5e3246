import { decodeIndex } from "./index.ts";
import { checkAgreement, checkLayout } from "./layout.ts";
import { decodeMetadata } from "./metadata.ts";
import type { ImageIndex, ImageMetadata, Superblock } from "./model.ts";
import { checkRegion, sealedRegions } from "./regions.ts";

/** A sealed image whose every rule was checked; only the channels' data was not read yet. */
export interface OpenedImage {
  readonly superblock: Superblock;
  readonly metadata: ImageMetadata;
  readonly index: ImageIndex;
}

/** The bytes of both regions, as sealedRegions() placed them. */
export interface RegionBytes {
  readonly metadata: Uint8Array;
  readonly index: Uint8Array;
}

/**
 * Checks and decodes metadata and index, in the order of docs/formats/image.md, "Reading".
 *
 * @param availableBytes bytes of the file from the base of the image on
 * @throws MultifdError NOT_SEALED, IMAGE_DAMAGED, UNSUPPORTED_VERSION
 */
export function openImage(superblock: Superblock, bytes: RegionBytes, availableBytes: number): OpenedImage {
  const regions = sealedRegions(superblock, availableBytes);
  checkRegion("metadata", regions.metadata, bytes.metadata);
  checkRegion("index", regions.index, bytes.index);
  const index = decodeIndex(bytes.index);
  checkLayout(superblock, index, availableBytes);
  const metadata = decodeMetadata(bytes.metadata);
  checkAgreement(metadata, index);
  return { superblock, metadata, index };
}
