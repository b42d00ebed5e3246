import { Buffer } from "node:buffer";
import { type FileHandle, open } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { alignUp } from "../../src/formats/image/align.ts";
import { encodeIndex } from "../../src/formats/image/index.ts";
import { encodeMetadata } from "../../src/formats/image/metadata.ts";
import type { WrittenChannel } from "../../src/formats/image/model.ts";
import { encodeSuperblock } from "../../src/formats/image/superblock.ts";
import { exampleMetadata } from "./example-image.ts";

const SUPERBLOCK = 4096;
const ZEROS = Buffer.alloc(1024 * 1024);

/** A region as its forger gives it: its first bytes, and how many zeros (that take no room on disk) follow. */
export interface ForgedRegion {
  readonly bytes: Buffer;
  readonly zeros?: number;
  /** Where the superblock says it is, when that is not where it was put. */
  readonly offset?: number;
}

export interface Forgery {
  readonly metadata?: ForgedRegion;
  readonly index: ForgedRegion;
  /** Where metadata and index are put, a multiple of 4096: what lies before is a hole. */
  readonly at?: number;
}

/**
 * Writes a sealed image whose every checksum fits and that breaks any other rule: what somebody makes who wants a
 * reader to crash, hang or fill memory. Sparse, so that any size costs nothing.
 */
export async function forge(file: string, { metadata, index, at = SUPERBLOCK }: Forgery): Promise<void> {
  const described = metadata ?? { bytes: encodeMetadata({ ...exampleMetadata(), multifdChannels: 0 }) };
  const indexAt = at + alignUp(sizeOf(described));
  const handle = await open(file, "w");
  try {
    await handle.write(described.bytes, 0, described.bytes.length, at);
    await handle.write(index.bytes, 0, index.bytes.length, indexAt);
    const imageBytes = indexAt + alignUp(sizeOf(index));
    await handle.truncate(imageBytes);
    const superblock = encodeSuperblock({
      state: "sealed",
      uuid: "00000000-0000-4000-8000-0000000000bb",
      createdMs: 0,
      imageBytes,
      metadata: await region(handle, described, at),
      index: await region(handle, index, indexAt),
    });
    await handle.write(superblock, 0, superblock.length, 0);
  } finally {
    await handle.close();
  }
}

/** The index of an image with main alone, unless channels are given. */
export function forgedIndex(
  main: Partial<WrittenChannel>,
  channels: readonly Partial<WrittenChannel>[] = [],
): Buffer {
  const nothing = {
    ...{ kind: "main" as const, id: 0, length: 0, blockBytes: 4096, tail: null, checksums: null },
    ...{ extents: new Float64Array(0), marks: new Float64Array(0) },
  };
  const rest = channels.map((channel, id) => ({ ...nothing, kind: "multifd" as const, id, ...channel }));
  return encodeIndex({ channels: [{ ...nothing, ...main }, ...rest] });
}

function sizeOf({ bytes, zeros = 0 }: ForgedRegion): number {
  return bytes.length + zeros;
}

async function region(
  handle: FileHandle,
  forged: ForgedRegion,
  at: number,
): Promise<{ offset: number; length: number; crc32: number }> {
  const length = sizeOf(forged);
  if (forged.offset !== undefined)
    return { offset: forged.offset, length, crc32: await crcAt(handle, forged.offset, length) };
  let crc = crc32(forged.bytes);
  for (let left = forged.zeros ?? 0; left > 0; left -= ZEROS.length) {
    crc = crc32(left < ZEROS.length ? ZEROS.subarray(0, left) : ZEROS, crc);
  }
  return { offset: at, length, crc32: crc };
}

async function crcAt(handle: FileHandle, offset: number, length: number): Promise<number> {
  const reader = await open(`/proc/self/fd/${handle.fd}`, "r");
  try {
    const { buffer } = await reader.read(Buffer.alloc(length), 0, length, offset);
    return crc32(buffer);
  } finally {
    await reader.close();
  }
}
