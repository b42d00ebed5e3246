import type { ByteInput } from "./byte-input.ts";
import type { Compression } from "./summary.ts";

// MultiFDPacket_t of QEMU 7.2.22 and 10.0.2, migration/multifd.h.
const NORMAL_PAGES = 16;
const ZERO_PAGES = 32;
const RAMBLOCK = 64;
const RAMBLOCK_BYTES = 256;
const OFFSETS = RAMBLOCK + RAMBLOCK_BYTES;

/** Whoever wants the pages of a multifd channel, packet by packet. */
export interface PacketSink {
  /**
   * A packet's header has passed and makes sense in itself; `payloadBytes` of payload come next.
   * @param packet to be read during the call only
   */
  pages(packet: PacketView, compression: Compression, payloadBytes: number): void;
  /** The header of a packet with device state instead of pages (QEMU 10). */
  deviceState(): void;
  /** The packet has passed, its payload included. @param sync the number of its SYNC, from 1; null: it has none */
  end(sync: number | null): void;
}

/** The header of a packet with pages, where it lies. */
export class PacketView {
  readonly #input: ByteInput;

  constructor(input: ByteInput) {
    this.#input = input;
  }

  /** Offset of the packet in its stream. */
  get at(): number {
    return this.#input.offset;
  }

  /** Pages whose data is in the payload, in its order; their offsets are the first ones. */
  get normalPages(): number {
    return this.#input.u32(NORMAL_PAGES);
  }

  /** Pages that are zero; their offsets follow. */
  get zeroPages(): number {
    return this.#input.u32(ZERO_PAGES);
  }

  /** Name of the RAMBlock; stale where there are no pages. */
  get block(): string {
    let length = 0;
    while (length < RAMBLOCK_BYTES && this.#input.u8(RAMBLOCK + length) !== 0) length++;
    return this.#input.text(RAMBLOCK, length);
  }

  /** Byte offset of a page within its RAMBlock. */
  offset(index: number): number {
    return this.#input.u64(OFFSETS + 8 * index);
  }
}
