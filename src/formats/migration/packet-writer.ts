import { Buffer } from "node:buffer";
import { FLAG_SYNC, INIT_BYTES, MULTIFD_VERSION, PACKET_BYTES, PAGES_PER_PACKET } from "./multifd-packet.ts";
import { MULTIFD_MAGIC, PAGE_SIZE } from "./wire.ts";

// As QEMU 10.0.2 fills them in, migration/multifd.c; 7.2.22 reads them, too.
const AT = { flags: 8, allocated: 12, normal: 16, payload: 20, number: 24, block: 64, offsets: 320 } as const;
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

/** Writes packets of one channel, without a payload of their own: it follows each header. */
export class PacketWriter {
  readonly #header = Buffer.alloc(PACKET_BYTES);
  /** QEMU 10 counts the packets of all channels together; all that matters is that no number comes twice. */
  #number: number;
  readonly #step: number;

  constructor(id: number, channels: number) {
    this.#number = id;
    this.#step = channels;
  }

  /** A packet that is nothing but a SYNC. The answer is valid until the next call. */
  sync(): Uint8Array {
    return this.#begin(FLAG_SYNC, 0);
  }

  /**
   * The header of a packet with up to 128 pages of data.
   * @param offsets of the pages in their block, in the order of their data
   * @returns valid until the next call
   */
  pages(block: string, offsets: readonly number[]): Uint8Array {
    const header = this.#begin(0, PAGES_PER_PACKET);
    header.writeUInt32BE(offsets.length, AT.normal);
    header.writeUInt32BE(offsets.length * PAGE_SIZE, AT.payload);
    header.write(block, AT.block, "latin1");
    for (const [number, offset] of offsets.entries()) {
      header.writeBigUInt64BE(BigInt(offset), AT.offsets + 8 * number);
    }
    return header;
  }

  #begin(flags: number, allocated: number): Buffer {
    const header = this.#header.fill(0);
    header.writeUInt32BE(MULTIFD_MAGIC, 0);
    header.writeUInt32BE(MULTIFD_VERSION, 4);
    header.writeUInt32BE(flags, AT.flags);
    header.writeUInt32BE(allocated, AT.allocated);
    header.writeBigUInt64BE(BigInt(this.#number), AT.number);
    this.#number += this.#step;
    return header;
  }
}
