import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import type { Superblock } from "./model.ts";
import {
  decodeStatePage,
  encodeStatePage,
  magicOf,
  readRegion,
  type StatePageKind,
  writeRegion,
} from "./state-page.ts";
import { readU64, viewOf, writeU64 } from "./u64.ts";

/** First eight bytes of an image, at its base. */
export const MAGIC = "MFDIMAGE";
/** Format version that this code writes, and the newest that it reads. */
export const FORMAT_VERSION = 1;

const SUPERBLOCK: StatePageKind = { what: "superblock", magic: MAGIC, version: FORMAT_VERSION };
// Offsets of docs/formats/image.md, "Superblock", behind what state-page.ts reads.
const AT = { imageBytes: 48, metadata: 56, index: 80 } as const;

/** The superblock that marks a file as an unfinished image, and so invalidates whatever image was there before. */
export function writingSuperblock(uuid: string, createdMs: number): Superblock {
  return { state: "writing", uuid, createdMs, imageBytes: 0, metadata: null, index: null };
}

/** @returns 4096 bytes, to be written at the base of the image. */
export function encodeSuperblock(superblock: Superblock): Buffer {
  return encodeStatePage(SUPERBLOCK, superblock, (view) => {
    writeU64(view, AT.imageBytes, superblock.imageBytes);
    writeRegion(view, AT.metadata, superblock.metadata);
    writeRegion(view, AT.index, superblock.index);
  });
}

/**
 * Reads the superblock, whatever its state: only the caller knows whether an unfinished image is an error.
 *
 * @param bytes the first 4096 bytes of the image, fewer only if the file is shorter
 * @throws MultifdError NOT_AN_IMAGE (other magic), IMAGE_DAMAGED (checksum, values), UNSUPPORTED_VERSION (later
 *   version or unknown required features)
 */
export function decodeSuperblock(bytes: Uint8Array): Superblock {
  checkMagic(bytes);
  const common = decodeStatePage(SUPERBLOCK, bytes);
  const view = viewOf(bytes);
  const sealed = common.state === "sealed";
  return {
    ...common,
    imageBytes: sealed ? readU64(view, AT.imageBytes, SUPERBLOCK.what) : 0,
    metadata: sealed ? readRegion(SUPERBLOCK, view, AT.metadata) : null,
    index: sealed ? readRegion(SUPERBLOCK, view, AT.index) : null,
  };
}

function checkMagic(bytes: Uint8Array): void {
  const found = magicOf(bytes);
  if (found === MAGIC) return;
  const start = Buffer.from(found, "latin1").toString("hex") || "nothing";
  throw new MultifdError(
    "NOT_AN_IMAGE",
    `this is no multifd-helper image: it starts with the bytes ${start}, not with "${MAGIC}"; check the path and --offset`,
    { where: "superblock byte 0", offset: 0, found: start },
  );
}
