import { Buffer } from "node:buffer";
import { randomFillSync } from "node:crypto";
import { packExtents } from "../src/formats/image/extents.ts";
import type { WrittenChannel, WrittenIndex } from "../src/formats/image/model.ts";
import { INIT_BYTES, PACKET_BYTES, PAGES_PER_PACKET } from "../src/formats/migration/multifd-packet.ts";
import { RAM_FLAGS } from "../src/formats/migration/ram-records.ts";
import { MAIN_MAGIC, MULTIFD_MAGIC, PAGE_SIZE } from "../src/formats/migration/wire.ts";

/*
 * Streams as QEMU sends them, made without one: what the micro-benchmark walks.
 */

const BLOCK_NAME = "ram";

/** One multifd channel: its init packet, then `packets` full packets of 128 pages of random bytes. */
export function multifdStream(packets: number): Buffer {
  const init = Buffer.alloc(INIT_BYTES);
  init.writeUInt32BE(MULTIFD_MAGIC, 0);
  init.writeUInt32BE(1, 4);
  const payload = Buffer.alloc(PAGES_PER_PACKET * PAGE_SIZE);
  randomFillSync(payload);
  const parts: Buffer[] = [init];
  for (let number = 0; number < packets; number++) parts.push(packetHeader(number), payload);
  return Buffer.concat(parts);
}

function packetHeader(number: number): Buffer {
  const header = Buffer.alloc(PACKET_BYTES);
  header.writeUInt32BE(MULTIFD_MAGIC, 0);
  header.writeUInt32BE(1, 4);
  header.writeUInt32BE(PAGES_PER_PACKET, 12);
  header.writeUInt32BE(PAGES_PER_PACKET, 16);
  header.writeUInt32BE(PAGES_PER_PACKET * PAGE_SIZE, 20);
  header.writeBigUInt64BE(BigInt(number), 24);
  header.write(BLOCK_NAME, 64);
  return header;
}

/** A main channel up to the end of RAM, with `pages` zero pages in it as QEMU 7.2 has them beside multifd. */
export function mainStream(pages: number): Buffer {
  const ramBytes = pages * PAGE_SIZE;
  const id = u32(2);
  const footer = Buffer.concat([u8(0x7e), id]);
  const eos = u64(RAM_FLAGS.EOS);
  const zero = (page: number): Buffer =>
    Buffer.concat([u64(page * PAGE_SIZE + RAM_FLAGS.ZERO + RAM_FLAGS.CONTINUE), u8(0)]);
  const firstZero = Buffer.concat([u64(RAM_FLAGS.ZERO), shortText(BLOCK_NAME), u8(0)]);
  const zeros = Array.from({ length: pages - 1 }, (_, index) => zero(index + 1));
  return Buffer.concat([
    ...[u32(MAIN_MAGIC), u32(3), u8(0x07), u32(11), Buffer.from("pc-q35-10.0")],
    ...[u8(0x01), id, shortText("ram"), u32(0), u32(4)],
    ...[u64(ramBytes + RAM_FLAGS.MEM_SIZE), shortText(BLOCK_NAME), u64(ramBytes), eos, footer],
    ...[u8(0x02), id, firstZero, ...zeros, eos, footer],
    ...[u8(0x03), id, eos, footer],
  ]);
}

/** The index of an image with as many channels, of which each holds as many blocks of 1 MiB. */
export function imageIndex(channels: number, blocks: number): WrittenIndex {
  const blockBytes = 2 ** 20;
  const record = (number: number): WrittenChannel => ({
    kind: number === 0 ? "main" : "multifd",
    id: Math.max(0, number - 1),
    length: blocks * blockBytes,
    blockBytes,
    checksums: new Uint32Array(blocks).fill(number),
    extents: packExtents(
      Array.from({ length: blocks }, (_, block) => ({
        offset: 4096 + (block * (channels + 1) + number) * blockBytes,
        length: blockBytes,
      })),
    ),
    marks: Float64Array.from({ length: blocks }, (_, block) => (block + 1) * blockBytes),
    tail: number === 0 ? blocks * blockBytes : null,
  });
  return { channels: Array.from({ length: channels + 1 }, (_, number) => record(number)) };
}

function u8(value: number): Buffer {
  return Buffer.of(value);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function shortText(text: string): Buffer {
  return Buffer.concat([u8(text.length), Buffer.from(text)]);
}
