import { crc32 } from "node:zlib";
import { MultifdError } from "../../errors.ts";
import { alignUp, isAligned } from "./align.ts";
import { damaged, hex32 } from "./damage.ts";
import {
  MAX_INDEX_BYTES,
  MAX_METADATA_BYTES,
  type Region,
  SUPERBLOCK_BYTES,
  type Superblock,
} from "./model.ts";

/** What a reader has to read before it knows anything else of an image. */
export interface SealedRegions {
  readonly metadata: Region;
  readonly index: Region;
}

/**
 * The places of metadata and index, checked so far that reading them is safe: inside the file and of bounded size.
 *
 * @param availableBytes bytes of the file from the base of the image on
 * @throws MultifdError NOT_SEALED, IMAGE_DAMAGED
 */
export function sealedRegions(superblock: Superblock, availableBytes: number): SealedRegions {
  const { state, imageBytes, metadata, index } = superblock;
  if (state !== "sealed" || metadata === null || index === null) {
    throw new MultifdError(
      "NOT_SEALED",
      "the image was never finished: its superblock says that it is still being written; save again",
      { where: "superblock byte 20", offset: 20 },
    );
  }
  if (!isAligned(imageBytes))
    throw damaged("superblock byte 48", `its size ${imageBytes} is no multiple of 4096`);
  if (imageBytes > availableBytes) {
    throw damaged(
      `byte ${availableBytes}`,
      `the file ends here, but the image has ${imageBytes} bytes: it was cut short`,
      { offset: availableBytes, imageBytes },
    );
  }
  checkPlace("metadata", metadata, imageBytes);
  checkPlace("index", index, imageBytes);
  checkSize("metadata", metadata, MAX_METADATA_BYTES);
  checkSize("index", index, MAX_INDEX_BYTES);
  return { metadata, index };
}

/** The checksum of a region that is read piece by piece. */
export class RegionSum {
  readonly #what: keyof SealedRegions;
  readonly #region: Region;
  #crc = 0;
  #bytes = 0;

  constructor(what: keyof SealedRegions, region: Region) {
    this.#what = what;
    this.#region = region;
  }

  push(bytes: Uint8Array): void {
    this.#crc = crc32(bytes, this.#crc);
    this.#bytes += bytes.length;
  }

  /** @throws MultifdError IMAGE_DAMAGED when what was pushed is not what the superblock says */
  check(): void {
    const { offset, length, crc32: stored } = this.#region;
    const where = `${this.#what} at byte ${offset}`;
    const details = { what: this.#what, offset };
    if (this.#bytes !== length) {
      throw damaged(where, `it has ${length} bytes and ${this.#bytes} could be read`, details);
    }
    if (this.#crc !== stored) {
      throw damaged(
        where,
        `the checksum is ${hex32(stored)} but the bytes give ${hex32(this.#crc)}`,
        details,
      );
    }
  }
}

/**
 * Holds a piece of the file against the rules that all have in common: aligned, not empty, behind the superblock and,
 * padding included, inside the image. `imageBytes` must be a multiple of 4096.
 *
 * @throws MultifdError IMAGE_DAMAGED
 */
export function checkPlace(
  what: string,
  piece: { readonly offset: number; readonly length: number },
  imageBytes: number,
): void {
  const { offset, length } = piece;
  const problem = placeProblem(offset, length, imageBytes);
  if (problem !== null) throw damaged(`${what} at byte ${offset}`, problem, { what, offset, length });
}

function placeProblem(offset: number, length: number, imageBytes: number): string | null {
  if (!isAligned(offset)) return "it does not start at a multiple of 4096";
  if (offset < SUPERBLOCK_BYTES) return "it lies in the superblock";
  if (length === 0) return "it is empty";
  // Subtracting cannot round, as adding two large numbers would; what starts behind the end leaves less than nothing.
  if (alignUp(length) > imageBytes - offset) {
    return `its ${length} bytes reach beyond the image's ${imageBytes}`;
  }
  return null;
}

function checkSize(what: string, region: Region, limit: number): void {
  if (region.length > limit) {
    throw damaged(
      `${what} at byte ${region.offset}`,
      `its ${region.length} bytes exceed the limit of ${limit}`,
      {
        what,
        offset: region.offset,
      },
    );
  }
}
