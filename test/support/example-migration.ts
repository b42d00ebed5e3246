import { Buffer } from "node:buffer";
import { tail } from "./fake-migration.ts";
import * as wire from "./stream-builder.ts";

/*
 * The worked examples of docs/formats/migration-stream.md: one guest with four pages of RAM, saved by QEMU 10 over two
 * channels and by 7.2 over one. Byte for byte the same on every run.
 */

const PAGE = wire.PAGE_BYTES;
const BLOCKS = [{ name: "mem", bytes: 4 * PAGE }];
const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const RAM_ID = 2;
const TAIL = tail({ timer: Buffer.alloc(24, 0x11) });

export interface ExampleMigration {
  readonly main: Buffer;
  readonly channels: readonly Buffer[];
  /** The guest's RAM when all is applied. */
  readonly ram: Buffer;
}

function pages(...fills: readonly number[]): Buffer {
  return Buffer.concat(fills.map((fill) => Buffer.alloc(PAGE, fill)));
}

/** Modern barriers, zero pages in packets. The guest ran: page 0 became zero, and page 2 was written to. */
export function exampleOfTen(): ExampleMigration {
  const flush = Buffer.concat([wire.flushWord, wire.eosWord]);
  const main = Buffer.concat([
    wire.configuration({ machine: "pc-q35-10.0" }),
    wire.startSection(RAM_ID, Buffer.concat([wire.blockList(BLOCKS), flush])),
    wire.partSection(RAM_ID, flush),
    wire.partSection(RAM_ID, flush),
    wire.command(11),
    wire.endSection(RAM_ID, wire.eosWord),
    TAIL,
  ]);
  const first = { block: "mem", normal: [0], zero: [3 * PAGE, 2 * PAGE], packetNumber: 2 };
  const second = { block: "mem", normal: [PAGE], packetNumber: 3, payload: pages(0x5b) };
  const third = { block: "mem", normal: [2 * PAGE], zero: [0], packetNumber: 6, payload: pages(0x5c) };
  const channels = [
    [
      wire.initPacket(0, UUID),
      wire.syncPacket(0),
      wire.packet({ ...first, payload: pages(0x5a) }),
      wire.syncPacket(4),
      wire.syncPacket(7),
    ],
    [
      wire.initPacket(1, UUID),
      wire.syncPacket(1),
      wire.packet(second),
      wire.syncPacket(5),
      wire.packet(third),
      wire.syncPacket(8),
    ],
  ].map((packets) => Buffer.concat(packets));
  return { main, channels, ram: pages(0, 0x5b, 0x5c, 0) };
}

/** Legacy barriers, zero pages on main; a page sent twice, SYNC merged with data, stale fields. */
export function exampleOfSeven(): ExampleMigration {
  const main = Buffer.concat([
    wire.configuration({ machine: "pc-q35-7.2" }),
    wire.startSection(RAM_ID, Buffer.concat([wire.blockList(BLOCKS), wire.eosWord])),
    wire.partSection(RAM_ID, Buffer.concat([wire.zeroRecord(3 * PAGE, "mem"), wire.eosWord])),
    wire.endSection(RAM_ID, wire.eosWord),
    TAIL,
  ]);
  const merged = { flags: 0x01, block: "mem", normal: [PAGE, 2 * PAGE], packetNumber: 2 };
  const leftOver = { block: "mem", nextPacketSize: 2 * PAGE };
  const channel = Buffer.concat([
    wire.initPacket(0),
    wire.packet({ flags: 0x01, packetNumber: 0 }),
    wire.packet({ block: "mem", normal: [0, PAGE], packetNumber: 1, payload: pages(0x5a, 0x5b) }),
    wire.packet({ ...merged, payload: pages(0x5b, 0x5c) }),
    withStaleOffsets(wire.packet({ ...leftOver, packetNumber: 3 })),
    withStaleOffsets(wire.packet({ ...leftOver, flags: 0x01, packetNumber: 3 })),
  ]);
  return { main, channels: [channel], ram: pages(0x5a, 0x5b, 0x5c, 0) };
}

/** 7.2 leaves the offsets of the last packet with data where they were. */
function withStaleOffsets(packet: Buffer): Buffer {
  packet.writeBigUInt64BE(BigInt(PAGE), 320);
  packet.writeBigUInt64BE(BigInt(2 * PAGE), 328);
  return packet;
}
