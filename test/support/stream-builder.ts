import { Buffer } from "node:buffer";

/**
 * Bytes as a migrating QEMU sends them, for tests and fake peers. Small functions return the pieces of a
 * stream; buildMigration() puts them together to a whole one that covers its RAM.
 */

export const PAGE_BYTES = 4096;
export const ZERO_UUID = "00000000-0000-0000-0000-000000000000";

export function u8(value: number): Buffer {
  return Buffer.from([value]);
}

export function be16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function be64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}

function counted(text: string): Buffer {
  return Buffer.concat([u8(text.length), Buffer.from(text, "latin1")]);
}

function uuidBytes(uuid: string): Buffer {
  return Buffer.from(uuid.replaceAll("-", ""), "hex");
}

// ---- main channel: skeleton

export interface ConfigurationOptions {
  readonly machine?: string;
  readonly pageBits?: number;
  readonly capabilities?: readonly string[];
  readonly uuid?: string;
}

/** Magic, version and the CONFIGURATION section. */
export function configuration(options: ConfigurationOptions = {}): Buffer {
  const machine = options.machine ?? "pc-q35-7.2";
  const parts = [Buffer.from("QEVM"), be32(3), u8(0x07), be32(machine.length), Buffer.from(machine)];
  if (options.pageBits !== undefined) parts.push(subsection("target-page-bits", be32(options.pageBits)));
  if (options.capabilities !== undefined) {
    const names = Buffer.concat(options.capabilities.map(counted));
    parts.push(subsection("capabilities", Buffer.concat([be32(options.capabilities.length), names])));
  }
  if (options.uuid !== undefined) parts.push(subsection("uuid", uuidBytes(options.uuid)));
  return Buffer.concat(parts);
}

export function subsection(name: string, fields: Buffer, version = 1): Buffer {
  return Buffer.concat([u8(0x05), counted(`configuration/${name}`), be32(version), fields]);
}

export function command(number: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([u8(0x08), be16(number), be16(data.length), data]);
}

function footer(id: number): Buffer {
  return Buffer.concat([u8(0x7e), be32(id)]);
}

function named(type: number, id: number, name: string, version: number, payload: Buffer): Buffer {
  const header = [u8(type), be32(id), counted(name), be32(0), be32(version)];
  return Buffer.concat([...header, payload, footer(id)]);
}

export function startSection(id: number, payload: Buffer, name = "ram", version = 4): Buffer {
  return named(0x01, id, name, version, payload);
}

export function partSection(id: number, payload: Buffer): Buffer {
  return Buffer.concat([u8(0x02), be32(id), payload, footer(id)]);
}

export function endSection(id: number, payload: Buffer): Buffer {
  return Buffer.concat([u8(0x03), be32(id), payload, footer(id)]);
}

export function fullSection(id: number, name: string, state: Buffer): Buffer {
  return named(0x04, id, name, 1, state);
}

export const eofByte: Buffer = u8(0x00);

/** `length` overrides the true one, for damaged streams. */
export function vmdescription(json: string, length: number = json.length): Buffer {
  return Buffer.concat([u8(0x06), be32(length), Buffer.from(json)]);
}

export function vmdescriptionJson(devices: readonly string[], pageSize: number = PAGE_BYTES): string {
  const list = devices.map((name) => ({ name, instance_id: 0, version: 1, fields: [] }));
  return JSON.stringify({ page_size: pageSize, devices: list });
}

// ---- main channel: RAM records

export interface BlockSpec {
  readonly name: string;
  readonly bytes: number;
}

/** `withAddresses`: as x-ignore-shared sends it, with a guest physical address behind each length. */
export function blockList(blocks: readonly BlockSpec[], withAddresses = false): Buffer {
  const total = blocks.reduce((sum, block) => sum + block.bytes, 0);
  const entries = blocks.map(({ name, bytes }) =>
    Buffer.concat([counted(name), be64(bytes), ...(withAddresses ? [be64(0)] : [])]),
  );
  return Buffer.concat([be64(total + 0x004), ...entries]);
}

export const eosWord: Buffer = be64(0x010);
export const flushWord: Buffer = be64(0x200);

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
  return Buffer.concat([be32(0x11223344), be32(1), uuidBytes(uuid), u8(id), Buffer.alloc(39)]);
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
  const header = Buffer.alloc(1344);
  header.writeUInt32BE(0x11223344, 0);
  header.writeUInt32BE(1, 4);
  header.writeUInt32BE(spec.flags ?? 0, 8);
  header.writeUInt32BE(spec.pagesAllocated ?? 128, 12);
  header.writeUInt32BE(normal.length, 16);
  header.writeUInt32BE(spec.nextPacketSize ?? (normal.length > 0 ? payload.length : 0), 20);
  header.writeBigUInt64BE(BigInt(spec.packetNumber ?? 0), 24);
  header.writeUInt32BE(zero.length, 32);
  header.write(spec.block ?? "", 64, "latin1");
  for (const [i, offset] of [...normal, ...zero].entries()) {
    header.writeBigUInt64BE(BigInt(offset), 320 + 8 * i);
  }
  return normal.length > 0 ? Buffer.concat([header, payload]) : header;
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
