import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { MultifdError } from "../../errors.ts";
import { damaged, hex32 } from "./damage.ts";
import { type Region, SUPERBLOCK_BYTES, type Superblock } from "./model.ts";
import { readU64, viewOf, writeU64 } from "./u64.ts";

/** First eight bytes of an image, at its base. */
export const MAGIC = "MFDIMAGE";
/** Format version that this code writes, and the newest that it reads. */
export const FORMAT_VERSION = 1;

// Offsets of docs/formats/image.md, "Superblock". Magic, version, the feature words and the checksum
// stay where they are in every later version, so that any reader can say why it refuses.
const AT = {
  magic: 0,
  version: 8,
  requiredFeatures: 12,
  state: 20,
  uuid: 24,
  created: 40,
  imageBytes: 48,
  metadata: 56,
  index: 80,
  checksum: SUPERBLOCK_BYTES - 4,
} as const;
const UUID_BYTES = 16;

const STATE_WRITING = 1;
const STATE_SEALED = 2;

/** The superblock that marks a file as an unfinished image, and so invalidates whatever image was there before. */
export function writingSuperblock(uuid: string, createdMs: number): Superblock {
  return { state: "writing", uuid, createdMs, imageBytes: 0, metadata: null, index: null };
}

/** @returns 4096 bytes, to be written at the base of the image. */
export function encodeSuperblock(superblock: Superblock): Buffer {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  const view = viewOf(bytes);
  bytes.write(MAGIC, AT.magic, "latin1");
  view.setUint32(AT.version, FORMAT_VERSION);
  view.setUint32(AT.state, superblock.state === "sealed" ? STATE_SEALED : STATE_WRITING);
  bytes.set(uuidBytes(superblock.uuid), AT.uuid);
  writeU64(view, AT.created, superblock.createdMs);
  writeU64(view, AT.imageBytes, superblock.imageBytes);
  writeRegion(view, AT.metadata, superblock.metadata);
  writeRegion(view, AT.index, superblock.index);
  view.setUint32(AT.checksum, crc32(bytes.subarray(0, AT.checksum)));
  return bytes;
}

/**
 * Reads the superblock, whatever its state: only the caller knows whether an unfinished image is an error.
 *
 * @param bytes the first 4096 bytes of the image, fewer only if the file is shorter
 * @throws MultifdError NOT_AN_IMAGE (other magic), IMAGE_DAMAGED (checksum, values), UNSUPPORTED_VERSION (later
 *   version or unknown required features)
 */
export function decodeSuperblock(bytes: Uint8Array): Superblock {
  const view = viewOf(bytes);
  checkMagic(bytes);
  checkChecksum(bytes, view);
  checkVersion(view);
  const state = readState(view);
  const sealed = state === "sealed";
  return {
    state,
    uuid: uuidText(bytes.subarray(AT.uuid, AT.uuid + UUID_BYTES)),
    createdMs: readU64(view, AT.created, "superblock"),
    imageBytes: sealed ? readU64(view, AT.imageBytes, "superblock") : 0,
    metadata: sealed ? readRegion(view, AT.metadata) : null,
    index: sealed ? readRegion(view, AT.index) : null,
  };
}

function checkMagic(bytes: Uint8Array): void {
  const found = Buffer.from(bytes.subarray(AT.magic, AT.version)).toString("latin1");
  if (found === MAGIC) return;
  const start = Buffer.from(found, "latin1").toString("hex") || "nothing";
  throw new MultifdError(
    "NOT_AN_IMAGE",
    `this is no multifd-helper image: it starts with the bytes ${start}, not with "${MAGIC}"; check the path and --offset`,
    { where: "superblock byte 0", offset: 0, found: start },
  );
}

// Before the version: only a checksum that holds makes "needs a newer multifd-helper" a true answer.
function checkChecksum(bytes: Uint8Array, view: DataView): void {
  if (bytes.length < SUPERBLOCK_BYTES) {
    throw damaged(
      `superblock byte ${bytes.length}`,
      `the file ends here, within its first ${SUPERBLOCK_BYTES} bytes`,
    );
  }
  const computed = crc32(bytes.subarray(0, AT.checksum));
  const stored = view.getUint32(AT.checksum);
  if (computed !== stored) {
    throw damaged(
      `superblock byte ${AT.checksum}`,
      `the checksum is ${hex32(stored)} but the bytes give ${hex32(computed)}`,
      { offset: AT.checksum, stored, computed },
    );
  }
}

function checkVersion(view: DataView): void {
  const version = view.getUint32(AT.version);
  if (version === 0) throw damaged(`superblock byte ${AT.version}`, "version 0 does not exist");
  if (version > FORMAT_VERSION) {
    throw new MultifdError(
      "UNSUPPORTED_VERSION",
      `the image has format version ${version} (superblock byte ${AT.version}) and this multifd-helper reads up to ${FORMAT_VERSION}; use a newer one`,
      { version, supported: FORMAT_VERSION, offset: AT.version },
    );
  }
  const features = view.getUint32(AT.requiredFeatures);
  if (features !== 0) {
    throw new MultifdError(
      "UNSUPPORTED_VERSION",
      `the image requires features ${hex32(features)} (superblock byte ${AT.requiredFeatures}) that this multifd-helper does not know; use a newer one`,
      { requiredFeatures: features, offset: AT.requiredFeatures },
    );
  }
}

function readState(view: DataView): Superblock["state"] {
  const state = view.getUint32(AT.state);
  if (state === STATE_WRITING) return "writing";
  if (state === STATE_SEALED) return "sealed";
  throw damaged(`superblock byte ${AT.state}`, `state ${state} is neither writing (1) nor sealed (2)`, {
    offset: AT.state,
  });
}

function readRegion(view: DataView, offset: number): Region {
  return {
    offset: readU64(view, offset, "superblock"),
    length: readU64(view, offset + 8, "superblock"),
    crc32: view.getUint32(offset + 16),
  };
}

function writeRegion(view: DataView, offset: number, region: Region | null): void {
  if (region === null) return;
  writeU64(view, offset, region.offset);
  writeU64(view, offset + 8, region.length);
  view.setUint32(offset + 16, region.crc32);
}

function uuidBytes(uuid: string): Buffer {
  const bytes = Buffer.from(uuid.replaceAll("-", ""), "hex");
  if (uuidText(bytes) !== uuid.toLowerCase()) {
    throw new MultifdError("INTERNAL", `"${uuid}" is no UUID, so no superblock can be made with it`);
  }
  return bytes;
}

function uuidText(bytes: Uint8Array): string {
  const digits = Buffer.from(bytes).toString("hex");
  return [
    [0, 8],
    [8, 12],
    [12, 16],
    [16, 20],
    [20, 32],
  ]
    .map(([from, to]) => digits.slice(from, to))
    .join("-");
}
