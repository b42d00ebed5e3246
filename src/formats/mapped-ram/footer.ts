import type { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import { type Region, SUPERBLOCK_BYTES } from "../image/model.ts";
import {
  decodeStatePage,
  encodeStatePage,
  type ImageState,
  magicOf,
  readRegion,
  type StatePageKind,
  writeRegion,
} from "../image/state-page.ts";
import { readU64, viewOf, writeU64 } from "../image/u64.ts";

export const FOOTER_BYTES: number = SUPERBLOCK_BYTES;
/** Version of the trailer that this code writes, and the newest that it reads. */
export const TRAILER_VERSION = 1;

const FOOTER: StatePageKind = { what: "footer", magic: "MFDMSEAL", version: TRAILER_VERSION };
// Offsets of docs/formats/mapped-ram.md, "Footer", behind what state-page.ts reads.
const AT = {
  base: 48,
  streamEnd: 56,
  streamCrc: 64,
  map: 72,
  metadata: 96,
  sums: 120,
  imageEnd: 144,
} as const;

/** What a sealed footer says, offsets counting from the start of the file. */
export interface Seal {
  /** Where QEMU's stream begins, and behind its last byte. */
  readonly base: number;
  readonly streamEnd: number;
  /** CRC-32 of the stream's own bytes (streamSpans). */
  readonly streamCrc: number;
  readonly map: Region;
  readonly metadata: Region;
  /** Checksums of the pages; empty with --checksum none. */
  readonly sums: Region;
  /** Behind the footer. */
  readonly imageEnd: number;
}

/** The last 4096 bytes of the image. */
export interface Footer extends ImageState {
  /** null while writing. */
  readonly seal: Seal | null;
}

/** Where the footer of a file or device of this size lies: its last whole page. Negative when there is none. */
export function footerOffset(fileBytes: number): number {
  return Math.floor(fileBytes / FOOTER_BYTES) * FOOTER_BYTES - FOOTER_BYTES;
}

/** @returns 4096 bytes */
export function encodeFooter(footer: Footer): Buffer {
  return encodeStatePage(FOOTER, footer, (view) => {
    const { seal } = footer;
    if (seal === null) return;
    writeU64(view, AT.base, seal.base);
    writeU64(view, AT.streamEnd, seal.streamEnd);
    view.setUint32(AT.streamCrc, seal.streamCrc);
    writeRegion(view, AT.map, seal.map);
    writeRegion(view, AT.metadata, seal.metadata);
    writeRegion(view, AT.sums, seal.sums);
    writeU64(view, AT.imageEnd, seal.imageEnd);
  });
}

/**
 * Reads the 4096 bytes at footerOffset, whatever their state.
 * @returns null where there is no footer: nobody but QEMU wrote this file
 * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION
 */
export function decodeFooter(bytes: Uint8Array): Footer | null {
  if (magicOf(bytes) !== FOOTER.magic) return null;
  const common = decodeStatePage(FOOTER, bytes);
  const view = viewOf(bytes);
  if (common.state === "writing") return { ...common, seal: null };
  return {
    ...common,
    seal: {
      base: readU64(view, AT.base, FOOTER.what),
      streamEnd: readU64(view, AT.streamEnd, FOOTER.what),
      streamCrc: view.getUint32(AT.streamCrc),
      map: readRegion(FOOTER, view, AT.map),
      metadata: readRegion(FOOTER, view, AT.metadata),
      sums: readRegion(FOOTER, view, AT.sums),
      imageEnd: readU64(view, AT.imageEnd, FOOTER.what),
    },
  };
}

/** The seal of a file that must have one. Throws NOT_SEALED. */
export function sealOf(footer: Footer | null): Seal {
  if (footer?.seal) return footer.seal;
  const why =
    footer === null
      ? "it has no seal of multifd-helper: QEMU or another program wrote it, or it was cut or added to, and nothing says that it is whole"
      : "it was never finished: its footer says that it is still being written";
  throw new MultifdError("NOT_SEALED", `this mapped-ram file cannot be trusted: ${why}; save again`, {});
}
