import { open, writeFile } from "node:fs/promises";
import { crc32 } from "node:zlib";
import { blocks } from "../../src/formats/image/blocks.ts";
import { packExtents } from "../../src/formats/image/extents.ts";
import type { ImageMetadata, WrittenChannel } from "../../src/formats/image/model.ts";
import { type OpenedImage, openImage } from "../../src/formats/image/open.ts";
import { buildSeal } from "../../src/formats/image/seal.ts";
import { decodeSuperblock, encodeSuperblock } from "../../src/formats/image/superblock.ts";

const PACKET = 1344;
const SYNC = 1;
const BLOCK = 2 ** 20;

/** The bytes of an image's channels, main first, as somebody who edits an image has them. */
export interface Streams {
  readonly image: OpenedImage;
  readonly streams: Buffer[];
}

/** Takes an image apart. For small images only: everything is held in memory. */
export async function readStreams(file: string): Promise<Streams> {
  const handle = await open(file);
  try {
    const read = async (offset: number, length: number): Promise<Buffer> => {
      const { buffer } = await handle.read(Buffer.alloc(length), 0, length, offset);
      return buffer;
    };
    const superblock = decodeSuperblock(await read(0, 4096));
    const { metadata, index } = superblock;
    if (metadata === null || index === null) throw new Error(`${file} is not sealed`);
    const regions = {
      metadata: await read(metadata.offset, metadata.length),
      index: await read(index.offset, index.length),
    };
    const image = openImage(superblock, regions, (await handle.stat()).size);
    const streams: Buffer[] = [];
    for (const record of image.index.channels) {
      const parts: Buffer[] = [];
      for (const block of blocks(record)) parts.push(await read(block.offset, block.length));
      streams.push(Buffer.concat(parts));
    }
    return { image, streams };
  } finally {
    await handle.close();
  }
}

/** Puts an image together, sealed and with the right checksums, whatever its streams hold. */
export async function writeStreams(
  file: string,
  image: OpenedImage,
  streams: readonly Buffer[],
  marks: readonly (readonly number[])[],
  metadata: ImageMetadata = image.metadata,
): Promise<void> {
  let end = 4096;
  const pieces: { offset: number; data: Buffer }[] = [];
  const channels = image.index.channels.map((record, number): WrittenChannel => {
    const data = streams[number] as Buffer;
    const offset = end;
    end += Math.ceil(data.length / 4096) * 4096;
    pieces.push({ offset, data });
    const checksums = [];
    for (let at = 0; at < data.length; at += BLOCK) checksums.push(crc32(data.subarray(at, at + BLOCK)));
    return {
      ...record,
      length: data.length,
      blockBytes: BLOCK,
      extents: packExtents([{ offset, length: data.length }]),
      marks: Float64Array.from(marks[number] ?? record.marks),
      checksums: Uint32Array.from(checksums),
    };
  });
  const { offset, closing, superblock } = buildSeal(image.superblock, metadata, { channels });
  const whole = Buffer.alloc(superblock.imageBytes);
  for (const piece of pieces) piece.data.copy(whole, piece.offset);
  closing.copy(whole, offset);
  encodeSuperblock(superblock).copy(whole, 0);
  await writeFile(file, whole, { mode: 0o600 });
}

/**
 * Copies an image without the later half of the data packets of its first channel. Its SYNC packets stay, so that the image is
 * whole in every respect but that a part of the guest's newest memory is missing.
 */
export async function dropLastPackets(from: string, to: string): Promise<void> {
  const { image, streams } = await readStreams(from);
  const channel = streams[1] as Buffer;
  const packets = packetsOf(channel);
  const data = packets.filter(({ sync, pages }) => !sync && pages > 0);
  // Half of them: QEMU often sends a page twice with the same bytes, because it was dirtied just before the first time.
  const dropped = new Set(data.slice(data.length / 2));
  const kept = [channel.subarray(0, 64)];
  const syncEnds: number[] = [];
  let length = 64;
  for (const packet of packets) {
    if (dropped.has(packet)) continue;
    kept.push(channel.subarray(packet.start, packet.end));
    length += packet.end - packet.start;
    if (packet.sync) syncEnds.push(length);
  }
  const [main, , ...others] = streams;
  const edited = [main as Buffer, Buffer.concat(kept), ...others];
  const marks = image.index.channels.map((record, number) => (number === 1 ? syncEnds : [...record.marks]));
  await writeStreams(to, image, edited, marks);
}

interface Packet {
  readonly start: number;
  readonly end: number;
  readonly sync: boolean;
  readonly pages: number;
}

/** The packets of an uncompressed channel of a machine with 4 KiB pages, init packet left out. */
function packetsOf(channel: Buffer): Packet[] {
  const packets: Packet[] = [];
  for (let start = 64; start < channel.length; ) {
    const pages = channel.readUInt32BE(start + 16);
    const end = start + PACKET + (pages > 0 ? channel.readUInt32BE(start + 20) : 0);
    packets.push({ start, end, sync: (channel.readUInt32BE(start + 8) & SYNC) !== 0, pages });
    start = end;
  }
  return packets;
}
