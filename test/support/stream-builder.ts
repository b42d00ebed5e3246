import { Buffer } from "node:buffer";
import * as main from "../../src/formats/migration/main-writer.ts";
import * as packets from "../../src/formats/migration/packet-writer.ts";
import { be16, be32, be64, counted, u8 } from "../../src/formats/migration/words.ts";

/**
 * Bytes as a migrating QEMU sends them, for tests and fake peers: the pieces that the generator of `bench` makes its
 * streams of, and what only tests need, because no QEMU sends it so. buildMigration() puts them together to a whole one
 * that covers its RAM.
 */

export const PAGE_BYTES = 4096;
export const ZERO_UUID = "00000000-0000-0000-0000-000000000000";

export {
  type BlockSpec,
  command,
  endSection,
  eofByte,
  eosWord,
  flushWord,
  fullSection,
  partSection,
  startSection,
  vmdescriptionJson,
} from "../../src/formats/migration/main-writer.ts";
export { be16, be32, be64, u8 };

// ---- main channel: skeleton

export interface ConfigurationOptions {
  readonly machine?: string;
  readonly pageBits?: number;
  readonly capabilities?: readonly string[];
  readonly uuid?: string;
}

/** Magic, version and the CONFIGURATION section. */
export function configuration(options: ConfigurationOptions = {}): Buffer {
  const parts: Buffer[] = [];
  if (options.pageBits !== undefined) parts.push(subsection("target-page-bits", be32(options.pageBits)));
  if (options.capabilities !== undefined) {
    const names = Buffer.concat(options.capabilities.map(counted));
    parts.push(subsection("capabilities", Buffer.concat([be32(options.capabilities.length), names])));
  }
  if (options.uuid !== undefined) parts.push(subsection("uuid", uuidBytes(options.uuid)));
  return main.configuration(options.machine ?? "pc-q35-7.2", ...parts);
}

export function subsection(name: string, fields: Buffer, version = 1): Buffer {
  return Buffer.concat([u8(0x05), counted(`configuration/${name}`), be32(version), fields]);
}

/** `length` overrides the true one, for damaged streams. */
export function vmdescription(json: string, length: number = json.length): Buffer {
  const section = main.vmdescription(json);
  section.writeUInt32BE(length, 1);
  return section;
}

function uuidBytes(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll("-", ""), "hex");
}

// ---- main channel: RAM records

/** `withAddresses`: as x-ignore-shared sends it, with a guest physical address behind each length. */
export function blockList(blocks: readonly main.BlockSpec[], withAddresses = false): Buffer {
  if (!withAddresses) return main.blockList(blocks);
  const sizes = main.blockList(blocks).subarray(0, 8);
  const entries = blocks.flatMap(({ name, bytes }) => [counted(name), be64(bytes), be64(0)]);
  return Buffer.concat([sizes, ...entries]);
}

/** The first word of a record, with the block's name unless the record continues (`block` null). */
export function recordHead(flag: number, address: number, block: string | null): Buffer {
  if (block === null) return be64(address + flag + 0x020);
  return Buffer.concat([be64(address + flag), counted(block)]);
}

export function zeroRecord(address: number, block: string | null): Buffer {
  return Buffer.concat([recordHead(0x002, address, block), u8(0)]);
}

export function pageRecord(address: number, block: string | null, page: Buffer): Buffer {
  return Buffer.concat([recordHead(0x008, address, block), page]);
}

export function xbzrleRecord(address: number, block: string | null, encoded: Buffer): Buffer {
  return Buffer.concat([recordHead(0x040, address, block), u8(1), be16(encoded.length), encoded]);
}

export function compressedRecord(address: number, block: string | null, deflated: Buffer): Buffer {
  return Buffer.concat([recordHead(0x100, address, block), be32(deflated.length), deflated]);
}

// ---- multifd channels

export function initPacket(id: number, uuid: string = ZERO_UUID): Buffer {
  return packets.initPacket(id, uuid);
}

export interface PacketSpec {
  readonly flags?: number;
  readonly block?: string;
  /** Byte offsets of the pages whose data is in `payload`. */
  readonly normal?: readonly number[];
  /** Byte offsets of the zero pages (9.0 and later). */
  readonly zero?: readonly number[];
  readonly payload?: Buffer;
  readonly packetNumber?: number;
  readonly pagesAllocated?: number;
  /** next_packet_size when it is not the payload's: 7.2 leaves the last one standing in empty packets. */
  readonly nextPacketSize?: number;
}

export function packet(spec: PacketSpec): Buffer {
  const normal = spec.normal ?? [];
  const zero = spec.zero ?? [];
  const payload = spec.payload ?? Buffer.alloc(normal.length * PAGE_BYTES, 0x5a);
  const header = packets.pageHeader({
    flags: spec.flags ?? 0,
    allocated: spec.pagesAllocated ?? 128,
    payloadBytes: spec.nextPacketSize ?? (normal.length > 0 ? payload.length : 0),
    number: spec.packetNumber ?? 0,
    block: spec.block ?? "",
    normal: normal.map(onePage),
    zero: zero.map(onePage),
  });
  return normal.length > 0 ? Buffer.concat([header, payload]) : header;
}

function onePage(start: number): packets.PageRun {
  return { start, end: start + PAGE_BYTES };
}

/** A packet that is nothing but a SYNC, as QEMU 10 sends it. */
export function syncPacket(packetNumber = 0): Buffer {
  return packet({ flags: 0x01, pagesAllocated: 0, packetNumber });
}

/** VFIO device state (QEMU 10 with x-migration-multifd-transfer). */
export function deviceStatePacket(device: string, instance: number, state: Buffer): Buffer {
  const header = Buffer.alloc(276);
  header.writeUInt32BE(0x11223344, 0);
  header.writeUInt32BE(1, 4);
  header.writeUInt32BE(0x40, 8);
  header.write(device, 12, "latin1");
  header.writeUInt32BE(instance, 268);
  header.writeUInt32BE(state.length, 272);
  return Buffer.concat([header, state]);
}
