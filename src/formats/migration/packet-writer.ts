import { Buffer } from "node:buffer";
import { FLAG_SYNC, INIT_BYTES, MULTIFD_VERSION, PACKET_BYTES, PAGES_PER_PACKET } from "./multifd-packet.ts";
import { MULTIFD_MAGIC, PAGE_SIZE } from "./wire.ts";

// As QEMU 10.0.2 fills them in, migration/multifd.c; 7.2.22 reads them, too.
const AT = {
  flags: 8,
  allocated: 12,
  normal: 16,
  payload: 20,
  number: 24,
  zero: 32,
  block: 64,
  offsets: 320,
} as const;
const HIGH_WORD = 2 ** 32;
/** Where the init packet has the VM's UUID and the channel's number. */
const INIT_AT = { uuid: 8, id: 24 } as const;

/**
 * What opens a channel.
 * @param uuid of the destination, in textual form; null: it was given none
 */
export function initPacket(id: number, uuid: string | null): Buffer {
  const packet = Buffer.alloc(INIT_BYTES);
  packet.writeUInt32BE(MULTIFD_MAGIC, 0);
  packet.writeUInt32BE(MULTIFD_VERSION, 4);
  packet.writeUInt8(id, INIT_AT.id);
  if (uuid !== null) giveUuid(packet, uuid);
  return packet;
}

/** A clone's channels introduce themselves with its own UUID (multifd_send_initial_packet, QEMU 7.2 to 10). */
export function giveUuid(initPacket: Uint8Array, uuid: string): void {
  initPacket.set(Buffer.from(uuid.replaceAll("-", ""), "hex"), INIT_AT.uuid);
}

/** Pages of 4 KiB one behind the other: offsets in their block, in bytes. */
export interface PageRun {
  readonly start: number;
  readonly end: number;
}

/** What the header of a packet says. */
export interface PageHeader {
  readonly flags: number;
  /** 128 in packets with pages; QEMU 10 has 0 in those that are nothing but a SYNC. */
  readonly allocated: number;
  readonly payloadBytes: number;
  readonly number: number;
  readonly block: string;
  /** The pages whose data follows, in its order. */
  readonly normal: readonly PageRun[];
  /** The pages that are zero; a QEMU before 9.0 does not look at them. */
  readonly zero: readonly PageRun[];
}

/** A header, which stands before the packet's payload. */
export function pageHeader(fields: PageHeader): Buffer {
  const { flags, allocated, payloadBytes, number, block, normal, zero } = fields;
  // Out of Node's pool: memory of its own costs more than all that is written to it.
  const into = Buffer.allocUnsafe(PACKET_BYTES).fill(0);
  const view = new DataView(into.buffer, into.byteOffset, PACKET_BYTES);
  const zeroAt = writeRuns(view, AT.offsets, normal);
  view.setUint32(0, MULTIFD_MAGIC);
  view.setUint32(4, MULTIFD_VERSION);
  view.setUint32(AT.flags, flags);
  view.setUint32(AT.allocated, allocated);
  view.setUint32(AT.normal, (zeroAt - AT.offsets) / 8);
  view.setUint32(AT.payload, payloadBytes);
  writeWide(view, AT.number, number);
  view.setUint32(AT.zero, (writeRuns(view, zeroAt, zero) - zeroAt) / 8);
  into.write(block, AT.block, "latin1");
  return into;
}

/** The offset of each page. @returns where the next ones go */
function writeRuns(view: DataView, start: number, runs: readonly PageRun[]): number {
  let at = start;
  for (const run of runs) {
    for (let offset = run.start; offset < run.end; offset += PAGE_SIZE) {
      writeWide(view, at, offset);
      at += 8;
    }
  }
  return at;
}

/** 64 bits in halves, of which each takes what fits: a BigInt for each page took a tenth of a restore's time. */
function writeWide(view: DataView, at: number, value: number): void {
  view.setUint32(at, value / HIGH_WORD);
  view.setUint32(at + 4, value);
}

/** Writes packets of one channel, without a payload of their own: it follows each header. */
export class PacketWriter {
  /** QEMU 10 counts the packets of all channels together; all that matters is that no number comes twice. */
  #number: number;
  readonly #step: number;

  constructor(id: number, channels: number) {
    this.#number = id;
    this.#step = channels;
  }

  /** A packet that is nothing but a SYNC. */
  sync(): Uint8Array {
    return this.#write({ flags: FLAG_SYNC, allocated: 0, payloadBytes: 0, block: "", normal: [], zero: [] });
  }

  /**
   * The header of a packet with up to 128 pages.
   * @param normal the pages with data, in the order of the data
   * @param zero the pages that are zero
   */
  pages(block: string, normal: readonly PageRun[], zero: readonly PageRun[] = []): Uint8Array {
    const payloadBytes = normal.reduce((sum, { start, end }) => sum + end - start, 0);
    return this.#write({ flags: 0, allocated: PAGES_PER_PACKET, payloadBytes, block, normal, zero });
  }

  #write(fields: Omit<PageHeader, "number">): Uint8Array {
    const number = this.#number;
    this.#number += this.#step;
    return pageHeader({ ...fields, number });
  }
}
