import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { MultifdError } from "../../errors.ts";
import { damaged, hex32 } from "./damage.ts";
import { type Region, SUPERBLOCK_BYTES } from "./model.ts";
import { readTime, readU64, viewOf, writeU64 } from "./u64.ts";

/**
 * 4096 bytes that say in what state a file is: the superblock of a stream image and the footer of a mapped-ram one, which make
 * it an image or none, and the mark of an instant restore.
 */
export interface StatePageKind {
  /** How errors name it. */
  readonly what: string;
  /** Its first eight bytes. */
  readonly magic: string;
  /** Format version that this code writes, and the newest that it reads. */
  readonly version: number;
}

/** What all of them say. */
export interface ImageState {
  readonly state: "writing" | "sealed";
  readonly uuid: string;
  /** Milliseconds since the epoch. */
  readonly createdMs: number;
}

// These offsets stay where they are in every later version, so that any reader can say why it refuses.
const AT = {
  magic: 0,
  version: 8,
  requiredFeatures: 12,
  state: 20,
  uuid: 24,
  created: 40,
  checksum: SUPERBLOCK_BYTES - 4,
} as const;
/** A UUID on disk, its bytes in textual order. */
export const UUID_BYTES = 16;

const STATE_WRITING = 1;
const STATE_SEALED = 2;

/** @param fill writes what this kind has behind the common part, from byte 48 on */
export function encodeStatePage(
  kind: StatePageKind,
  { state, uuid, createdMs }: ImageState,
  fill: (view: DataView) => void,
): Buffer {
  const bytes = Buffer.alloc(SUPERBLOCK_BYTES);
  const view = viewOf(bytes);
  bytes.write(kind.magic, AT.magic, "latin1");
  view.setUint32(AT.version, kind.version);
  view.setUint32(AT.state, state === "sealed" ? STATE_SEALED : STATE_WRITING);
  bytes.set(uuidBytes(uuid), AT.uuid);
  writeU64(view, AT.created, createdMs);
  fill(view);
  view.setUint32(AT.checksum, crc32(bytes.subarray(0, AT.checksum)));
  return bytes;
}

/** The first eight bytes as text. */
export function magicOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.subarray(AT.magic, AT.version)).toString("latin1");
}

/**
 * Reads the common part of a page whose magic the caller has seen.
 * @throws MultifdError IMAGE_DAMAGED (length, checksum, values), UNSUPPORTED_VERSION (later version or unknown features)
 */
export function decodeStatePage(kind: StatePageKind, bytes: Uint8Array): ImageState {
  const view = viewOf(bytes);
  checkChecksum(kind, bytes, view);
  checkVersion(kind, view);
  return {
    state: readState(kind, view),
    uuid: uuidText(bytes.subarray(AT.uuid, AT.uuid + UUID_BYTES)),
    createdMs: readTime(view, AT.created, kind.what),
  };
}

/** u64 offset, u64 length, u32 CRC-32, u32 reserved. */
export function readRegion({ what }: StatePageKind, view: DataView, offset: number): Region {
  return {
    offset: readU64(view, offset, what),
    length: readU64(view, offset + 8, what),
    crc32: view.getUint32(offset + 16),
  };
}

export function writeRegion(view: DataView, offset: number, region: Region | null): void {
  if (region === null) return;
  writeU64(view, offset, region.offset);
  writeU64(view, offset + 8, region.length);
  view.setUint32(offset + 16, region.crc32);
}

// Before the version: only a checksum that holds makes "needs a newer multifd-helper" a true answer.
function checkChecksum({ what }: StatePageKind, bytes: Uint8Array, view: DataView): void {
  if (bytes.length < SUPERBLOCK_BYTES) {
    throw damaged(
      `${what} byte ${bytes.length}`,
      `the file ends here, within its first ${SUPERBLOCK_BYTES} bytes`,
    );
  }
  const computed = crc32(bytes.subarray(0, AT.checksum));
  const stored = view.getUint32(AT.checksum);
  if (computed !== stored) {
    throw damaged(
      `${what} byte ${AT.checksum}`,
      `the checksum is ${hex32(stored)} but the bytes give ${hex32(computed)}`,
      { offset: AT.checksum, stored, computed },
    );
  }
}

function checkVersion({ what, version: supported }: StatePageKind, view: DataView): void {
  const version = view.getUint32(AT.version);
  if (version === 0) throw damaged(`${what} byte ${AT.version}`, "version 0 does not exist");
  if (version > supported) {
    throw new MultifdError(
      "UNSUPPORTED_VERSION",
      `the image has format version ${version} (${what} byte ${AT.version}) and this multifd-helper reads up to ${supported}; use a newer one`,
      { version, supported, offset: AT.version },
    );
  }
  const features = view.getUint32(AT.requiredFeatures);
  if (features !== 0) {
    throw new MultifdError(
      "UNSUPPORTED_VERSION",
      `the image requires features ${hex32(features)} (${what} byte ${AT.requiredFeatures}) that this multifd-helper does not know; use a newer one`,
      { requiredFeatures: features, offset: AT.requiredFeatures },
    );
  }
}

function readState({ what }: StatePageKind, view: DataView): ImageState["state"] {
  const state = view.getUint32(AT.state);
  if (state === STATE_WRITING) return "writing";
  if (state === STATE_SEALED) return "sealed";
  throw damaged(`${what} byte ${AT.state}`, `state ${state} is neither writing (1) nor sealed (2)`, {
    offset: AT.state,
  });
}

/** Throws INTERNAL when it is none. */
export function uuidBytes(uuid: string): Buffer {
  const bytes = Buffer.from(uuid.replaceAll("-", ""), "hex");
  if (uuidText(bytes) !== uuid.toLowerCase()) {
    throw new MultifdError("INTERNAL", `"${uuid}" is no UUID, so nothing on disk can be named by it`);
  }
  return bytes;
}

export function uuidText(bytes: Uint8Array): string {
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
