import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { openFile, readSealed } from "../../src/control/opened-image.ts";
import { SILENT } from "../../src/control/silent-log.ts";
import { alignUp } from "../../src/formats/image/align.ts";
import { blocks } from "../../src/formats/image/blocks.ts";
import { packExtents } from "../../src/formats/image/extents.ts";
import type { Extent, ImageMetadata, WrittenChannel } from "../../src/formats/image/model.ts";
import { SUPERBLOCK_BYTES } from "../../src/formats/image/model.ts";
import type { OpenedImage } from "../../src/formats/image/open.ts";
import { buildSeal } from "../../src/formats/image/seal.ts";
import { decodeSuperblock, encodeSuperblock } from "../../src/formats/image/superblock.ts";
import { readAligned } from "../../src/io/file-io.ts";
import { exampleMetadata } from "./example-image.ts";
import type { Random } from "./random.ts";

const PAGE = 4096;
/** More than Node reads of a paused socket, and than a socket holds. */
const DEVICE_BYTES = 512 * 1024;

/** What one connection carries, and what the index is to say of it. */
export interface ChannelContent {
  readonly bytes: Buffer;
  readonly marks: readonly number[];
  readonly tail: number | null;
}

export interface BuildOptions {
  readonly blockBytes?: number;
  readonly checksums?: boolean;
  readonly metadata?: Partial<ImageMetadata>;
}

/** A sealed image of any channels, main first; their extents alternate in the file as those of a save do. */
export function buildImage(channels: readonly ChannelContent[], options: BuildOptions = {}): Buffer {
  const { blockBytes = 64 * 1024, checksums = true } = options;
  const metadata = { ...exampleMetadata(), multifdChannels: channels.length - 1, ...options.metadata };
  const extents = placeExtents(channels, 4 * blockBytes);
  const records = channels.map(({ bytes, marks, tail }, number): WrittenChannel => {
    const count = checksums ? Math.ceil(bytes.length / blockBytes) : 0;
    const sums = Uint32Array.from({ length: count }, (_, block) =>
      crc32(bytes.subarray(block * blockBytes, (block + 1) * blockBytes)),
    );
    return {
      ...(number === 0 ? { kind: "main" as const, id: 0 } : { kind: "multifd" as const, id: number - 1 }),
      ...{ length: bytes.length, blockBytes, extents: packExtents(extents[number] ?? []), tail },
      marks: Float64Array.from(marks),
      checksums: checksums ? sums : null,
    };
  });
  const identity = { uuid: "00000000-0000-4000-8000-0000000000aa", createdMs: Date.UTC(2026, 0, 1) };
  const seal = buildSeal(identity, metadata, { channels: records });
  const image = Buffer.alloc(seal.superblock.imageBytes);
  encodeSuperblock(seal.superblock).copy(image);
  for (const [number, { bytes }] of channels.entries()) {
    let position = 0;
    for (const { offset, length } of extents[number] ?? []) {
      bytes.copy(image, offset, position, position + length);
      position += length;
    }
  }
  seal.closing.copy(image, seal.offset);
  return image;
}

function placeExtents(channels: readonly ChannelContent[], extentBytes: number): Extent[][] {
  const extents: Extent[][] = channels.map(() => []);
  const longest = Math.max(...channels.map(({ bytes }) => bytes.length));
  let offset = SUPERBLOCK_BYTES;
  for (let position = 0; position < longest; position += extentBytes) {
    for (const [number, { bytes }] of channels.entries()) {
      const length = Math.min(extentBytes, bytes.length - position);
      if (length <= 0) continue;
      extents[number]?.push({ offset, length });
      offset += alignUp(length);
    }
  }
  return extents;
}

export interface NoiseShape {
  readonly multifdChannels: number;
  /** Barriers on main, and so SYNCs on each channel. */
  readonly barriers: number;
  /** About how many bytes a channel carries from one SYNC to the next; channels differ. */
  readonly epochBytes: number;
}

/** Channels of random bytes with marks at random places: all that a restore, which parses nothing, looks at. */
export function noiseChannels(random: Random, shape: NoiseShape): ChannelContent[] {
  const { multifdChannels, barriers, epochBytes } = shape;
  const multifd = Array.from({ length: multifdChannels }, () => {
    const marks: number[] = [];
    for (let end = 64; marks.length < barriers; marks.push(end)) end += 1 + random.integer(2 * epochBytes);
    const end = (marks.at(-1) ?? 64) + random.integer(2 * epochBytes);
    return { bytes: noise(random, end), marks, tail: null };
  });
  const marks: number[] = [];
  for (let start = 8; marks.length < barriers; marks.push(start)) start += 1 + random.integer(3 * PAGE);
  const tail = (marks.at(-1) ?? 8) + 1 + random.integer(PAGE);
  return [{ bytes: noise(random, tail + DEVICE_BYTES + random.integer(PAGE)), marks, tail }, ...multifd];
}

function noise(random: Random, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, length >>> 2);
  for (const word of words.keys()) words[word] = random.integer(2 ** 32);
  return bytes;
}

/** Opens a sealed image and reads what each connection of a restore has to carry, main first. */
export async function readChannels(
  path: string,
  offset = 0,
): Promise<{ image: OpenedImage; channels: ChannelContent[] }> {
  const { source, head } = await openFile(path, offset, "off", SILENT);
  try {
    const image = await readSealed(source, decodeSuperblock(head));
    const channels: ChannelContent[] = [];
    for (const record of image.index.channels) {
      const parts: Uint8Array[] = [];
      for (const block of blocks(record)) {
        parts.push(await readAligned(source.fd, source.base + block.offset, block.length));
      }
      channels.push({ bytes: Buffer.concat(parts), marks: [...record.marks], tail: record.tail });
    }
    return { image, channels };
  } finally {
    source.close();
  }
}
