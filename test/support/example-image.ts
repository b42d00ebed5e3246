import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { extentsOf, packExtents } from "../../src/formats/image/extents.ts";
import type { Extent, ImageMetadata, WrittenChannel, WrittenIndex } from "../../src/formats/image/model.ts";
import { buildSeal } from "../../src/formats/image/seal.ts";
import { encodeSuperblock } from "../../src/formats/image/superblock.ts";

/*
 * The worked example of docs/formats/image.md: what QEMU 10 would send for a guest with two pages of RAM, the first
 * full of 0x5a, the second zero, over two multifd channels. Byte for byte the same on every run.
 */

const VM_UUID = "00112233-4455-6677-8899-aabbccddeeff";
const PAGE = 4096;
const BLOCK = 4096;

/** Channel bytes by name, and what the index says of them. */
interface ExampleChannel {
  readonly bytes: Buffer;
  readonly marks: readonly number[];
  readonly tail: number | null;
}

export interface ExampleImage {
  readonly bytes: Buffer;
  readonly metadata: ImageMetadata;
  readonly index: WrittenIndex;
  /** Streams of main, channel 0, channel 1. */
  readonly streams: readonly Buffer[];
}

/** @param change what its metadata say otherwise */
export function exampleImage(change: Partial<ImageMetadata> = {}): ExampleImage {
  const main = mainStream();
  const first = multifdStream(0, [dataPacket(), zeroPacket()]);
  const second = multifdStream(1, []);
  const index: WrittenIndex = {
    channels: [
      record("main", 0, main, [{ offset: 0x3000, length: main.bytes.length }]),
      record("multifd", 0, first, [
        { offset: 0x1000, length: 2 * BLOCK },
        { offset: 0x5000, length: first.bytes.length - 2 * BLOCK },
      ]),
      record("multifd", 1, second, [{ offset: 0x4000, length: second.bytes.length }]),
    ],
  };
  const metadata = { ...exampleMetadata(), ...change };
  const identity = { uuid: "c0ffee00-0000-4000-8000-000000000001", createdMs: Date.UTC(2026, 0, 1) };
  const seal = buildSeal(identity, metadata, index);
  const streams = [main.bytes, first.bytes, second.bytes];
  const bytes = Buffer.alloc(seal.superblock.imageBytes);
  encodeSuperblock(seal.superblock).copy(bytes);
  for (const [number, channel] of index.channels.entries()) place(bytes, channel, streams[number] as Buffer);
  seal.closing.copy(bytes, seal.offset);
  return { bytes, metadata, index, streams };
}

export function exampleMetadata(): ImageMetadata {
  return {
    writer: "multifd-helper 0.1.0",
    qemuVersion: "10.0.2",
    multifdChannels: 2,
    compression: "none",
    machine: "pc-q35-10.0",
    vmUuid: VM_UUID,
    pageSize: PAGE,
    barrierMode: "modern",
    capabilities: [],
    ramBlocks: [{ name: "mem", usedLength: 2 * PAGE }],
    devices: ["timer"],
    needsZeroedRam: true,
    evidence: { verdict: "complete", decidedBy: "structure", reasons: [] },
    vm: null,
    user: { name: "example" },
    userBinary: { key: "AP8=" },
  };
}

function record(
  kind: WrittenChannel["kind"],
  id: number,
  channel: ExampleChannel,
  extents: readonly Extent[],
): WrittenChannel {
  const { bytes, tail } = channel;
  const marks = Float64Array.from(channel.marks);
  const checksums = new Uint32Array(Math.ceil(bytes.length / BLOCK));
  for (const block of checksums.keys()) {
    checksums[block] = crc32(bytes.subarray(block * BLOCK, (block + 1) * BLOCK));
  }
  return {
    kind,
    id,
    length: bytes.length,
    blockBytes: BLOCK,
    extents: packExtents(extents),
    marks,
    tail,
    checksums,
  };
}

function place(image: Buffer, channel: WrittenChannel, stream: Buffer): void {
  let position = 0;
  for (const { offset, length } of extentsOf(channel)) {
    stream.copy(image, offset, position, position + length);
    position += length;
  }
}

/** Init packet, SYNC of the set-up, packets, SYNC behind the last page. */
function multifdStream(id: number, packets: readonly Buffer[]): ExampleChannel {
  const parts = [initPacket(id), packet({ flags: 1 }), ...packets, packet({ flags: 1 })];
  const lengths = parts.map((part) => part.length);
  const setUp = (lengths[0] ?? 0) + (lengths[1] ?? 0);
  const bytes = Buffer.concat(parts);
  return { bytes, marks: [setUp, bytes.length], tail: null };
}

function initPacket(id: number): Buffer {
  const bytes = Buffer.alloc(64);
  bytes.writeUInt32BE(0x11223344, 0);
  bytes.writeUInt32BE(1, 4);
  bytes.write(VM_UUID.replaceAll("-", ""), 8, "hex");
  bytes.writeUInt8(id, 24);
  return bytes;
}

function dataPacket(): Buffer {
  const header = packet({ flags: 0, normalPages: 1, offset: 0 });
  return Buffer.concat([header, Buffer.alloc(PAGE, 0x5a)]);
}

function zeroPacket(): Buffer {
  return packet({ flags: 0, zeroPages: 1, offset: PAGE });
}

function packet(fields: {
  flags: number;
  normalPages?: number;
  zeroPages?: number;
  offset?: number;
}): Buffer {
  const bytes = Buffer.alloc(1344);
  bytes.writeUInt32BE(0x11223344, 0);
  bytes.writeUInt32BE(1, 4);
  bytes.writeUInt32BE(fields.flags, 8);
  if (fields.offset === undefined) return bytes;
  bytes.writeUInt32BE(128, 12);
  bytes.writeUInt32BE(fields.normalPages ?? 0, 16);
  bytes.writeUInt32BE((fields.normalPages ?? 0) * PAGE, 20);
  bytes.writeUInt32BE(fields.zeroPages ?? 0, 32);
  bytes.write("mem", 64, "latin1");
  bytes.writeBigUInt64BE(BigInt(fields.offset), 320);
  return bytes;
}

function mainStream(): ExampleChannel {
  const machine = "pc-q35-10.0";
  const description = Buffer.from('{"page_size":4096,"devices":[{"name":"timer","instance_id":0}]}');
  const beforeFirst = Buffer.concat([
    Buffer.from("QEVM"),
    u32(3),
    u8(0x07),
    u32(machine.length),
    Buffer.from(machine),
    Buffer.concat([u8(0x01), u32(1), u8(3), Buffer.from("ram"), u32(0), u32(4)]),
    Buffer.concat([u64(2 * PAGE + 0x004), u8(3), Buffer.from("mem"), u64(2 * PAGE)]),
  ]);
  const endOfSetUp = Buffer.concat([u64(0x200), u64(0x010), u8(0x7e), u32(1), u8(0x03), u32(1)]);
  const endOfRam = Buffer.concat([u64(0x200), u64(0x010), u8(0x7e), u32(1)]);
  const timer = [
    u8(0x04),
    u32(2),
    u8(5),
    Buffer.from("timer"),
    u32(0),
    u32(2),
    Buffer.alloc(24),
    u8(0x7e),
    u32(2),
  ];
  const end = [u8(0x00), u8(0x06), u32(description.length), description];
  const secondBarrier = beforeFirst.length + endOfSetUp.length;
  return {
    bytes: Buffer.concat([beforeFirst, endOfSetUp, endOfRam, ...timer, ...end]),
    marks: [beforeFirst.length, secondBarrier],
    tail: secondBarrier + endOfRam.length,
  };
}

function u8(value: number): Buffer {
  return Buffer.from([value]);
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
