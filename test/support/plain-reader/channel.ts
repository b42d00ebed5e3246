import { Buffer } from "node:buffer";
import { constants, inflateSync } from "node:zlib";
import { Cursor, demand } from "./cursor.ts";
import { PAGE } from "./main-stream.ts";
import { unzstd } from "./zstd.ts";

/*
 * A plain reader of a multifd channel (migration/multifd.h of QEMU 7.2 and 10.0) for pages of 4096 bytes. Shares no code
 * with the product and wants the whole channel in memory.
 */

const MAGIC = 0x1122_3344;
const SYNC = 0x01;
const ZLIB = 0x02;
const ZSTD = 0x04;
const DEVICE_STATE = 0x40;
const PAGES = 128;

/** A page that came: its bytes, or null for a zero page. */
export interface Write {
  readonly block: string;
  /** Bytes into the block. */
  readonly offset: number;
  readonly data: Buffer | null;
}

export interface Init {
  readonly id: number;
  /** 32 hex digits. */
  readonly uuid: string;
}

export interface Channel extends Init {
  /** What came before the first SYNC (and with it), between the first and the second … and behind the last. */
  readonly epochs: readonly (readonly Write[])[];
}

interface Packet {
  readonly flags: number;
  readonly block: string;
  readonly normal: readonly number[];
  readonly zero: readonly number[];
  readonly payload: Buffer;
}

export function readChannel(bytes: Buffer): Channel {
  const cursor = new Cursor(bytes);
  readMagic(cursor);
  const init = { uuid: cursor.take(16).toString("hex"), id: cursor.u8() };
  cursor.take(39);
  const packets: Packet[] = [];
  while (cursor.left > 0) {
    const packet = readPacket(cursor);
    if (packet !== null) packets.push(packet);
  }
  const data = new Cursor(unpack(packets));
  const epochs: Write[][] = [[]];
  for (const { flags, block, normal, zero } of packets) {
    const epoch = epochs.at(-1);
    for (const offset of normal) epoch?.push({ block, offset, data: data.take(PAGE) });
    for (const offset of zero) epoch?.push({ block, offset, data: null });
    if ((flags & SYNC) !== 0) epochs.push([]);
  }
  demand(data.left === 0, `channel ${init.id} unpacks to ${data.left} bytes more than its pages have`);
  return { ...init, epochs };
}

function readMagic(cursor: Cursor): void {
  const at = cursor.at;
  demand(cursor.u32() === MAGIC && cursor.u32() === 1, `no packet of version 1 begins at ${at}`);
}

/** null: device state, which is no RAM. */
function readPacket(cursor: Cursor): Packet | null {
  const at = cursor.at;
  readMagic(cursor);
  const flags = cursor.u32();
  if (flags === DEVICE_STATE) {
    cursor.take(256 + 4);
    cursor.take(cursor.u32());
    return null;
  }
  cursor.u32(); // pages_alloc says nothing
  const [normal, size] = [cursor.u32(), cursor.u32()];
  cursor.take(8); // packet_num is not unique
  const zero = cursor.u32();
  cursor.take(28);
  const name = cursor.text(256);
  const offsets = new Cursor(cursor.take(8 * PAGES));
  demand(normal + zero <= PAGES, `the packet at ${at} has ${normal} and ${zero} pages`);
  demand(name.includes("\0"), `the packet at ${at} has a name without an end`);
  return {
    flags,
    block: name.slice(0, name.indexOf("\0")),
    normal: Array.from({ length: normal }, () => offsets.u64()),
    zero: Array.from({ length: zero }, () => offsets.u64()),
    payload: cursor.take(normal === 0 ? 0 : size),
  };
}

/** The pages of all packets, one behind the other. A compressed channel is one stream from its first packet to its last. */
function unpack(packets: readonly Packet[]): Buffer {
  const full = packets.filter(({ normal }) => normal.length > 0);
  const payload = Buffer.concat(full.map((packet) => packet.payload));
  const methods = new Set(full.map(({ flags }) => flags & ~SYNC));
  demand(methods.size <= 1, `a channel's packets have the flags ${[...methods].join()}`);
  const [method = 0] = methods;
  if (method === ZLIB) return inflateSync(payload, { finishFlush: constants.Z_SYNC_FLUSH });
  if (method === ZSTD)
    return unzstd(
      payload,
      full.reduce((sum, { normal }) => sum + normal.length * PAGE, 0),
    );
  demand(method === 0, `a channel's packets have the flags ${method}, which are not read here`);
  return payload;
}
