import { unsupported } from "../../formats/mapped-ram/layout.ts";
import type { PacketSink, PacketView } from "../../formats/migration/packet-sink.ts";
import type { Compression } from "../../formats/migration/summary.ts";
import { PAGE_SIZE, protocolError } from "../../formats/migration/wire.ts";
import type { ControlBlock } from "../control-block.ts";
import type { Barriers } from "./barriers.ts";
import type { Hold } from "./hold.ts";
import type { PageWriter } from "./page-writer.ts";
import { type Unpacker, unpackerFor } from "./unpacker.ts";

/** A header of a multifd packet, with what may be read of it at once. */
const HEADER_BYTES = 2048;

/** Pages one behind the other; the offset of the first is in bytes. */
interface Run {
  readonly offset: number;
  pages: number;
}

/** A packet whose header has passed. */
interface Packet {
  /** Offset in the stream. */
  readonly at: number;
  readonly block: string;
  /** The pages with data, in their order, and those that are zero. */
  readonly data: readonly Run[];
  readonly zero: readonly Run[];
  readonly normalPages: number;
  readonly compression: Compression;
}

/**
 * Places the pages of one multifd channel. Headers are read into a buffer of their own and payloads, unless they are
 * compressed, straight into the memory that is written from.
 */
export class PacketPlacer implements PacketSink {
  readonly #control: ControlBlock;
  readonly #writer: PageWriter;
  readonly #hold: Hold;
  readonly #barriers: Barriers;
  readonly #header = new Uint8Array(HEADER_BYTES);
  #packet: Packet | null = null;
  /** Bytes of the payload that have not come. */
  #payloadLeft = 0;
  /** Payload that is to be unpacked when all of it is there. */
  #packed: Uint8Array | null = null;
  #unpacker: Unpacker | null = null;

  constructor(control: ControlBlock, writer: PageWriter, barriers: Barriers, hold: Hold) {
    this.#control = control;
    this.#writer = writer;
    this.#barriers = barriers;
    this.#hold = hold;
  }

  /** Where the next bytes go. @param wanted how many the walker lacks for the next thing it can read */
  space(wanted: number): Uint8Array {
    if (this.#payloadLeft === 0) return this.#header.subarray(0, wanted);
    if (this.#packed !== null) return this.#packed.subarray(this.#packed.length - this.#payloadLeft);
    return this.#writer.space.subarray(0, this.#payloadLeft);
  }

  /** Takes note of bytes that were put into `space`, before the walker has them. */
  filled(bytes: number): void {
    if (this.#payloadLeft === 0) return;
    this.#payloadLeft -= bytes;
    if (this.#packed === null) this.#holdUnless(this.#writer.filled(bytes));
  }

  pages(view: PacketView, compression: Compression, payloadBytes: number): void {
    const { normalPages, zeroPages } = view;
    if (normalPages + zeroPages === 0) return;
    const data = runsOf(view, 0, normalPages);
    const zero = runsOf(view, normalPages, normalPages + zeroPages);
    this.#packet = { at: view.at, block: view.block, data, zero, normalPages, compression };
    this.#payloadLeft = payloadBytes;
    this.#packed = normalPages > 0 && compression !== "none" ? new Uint8Array(payloadBytes) : null;
    if (this.#packed !== null) this.#unpacker ??= unpackerOf(compression);
    if (this.#control.laidOut) this.#announce(this.#packet);
    // No QEMU does this; one that did would mean pages of the first epoch.
    else this.#hold.until(this.#whenLaidOut(this.#packet));
  }

  deviceState(): void {
    throw unsupported("a channel carries device state (vfio with x-migration-multifd-transfer)");
  }

  end(sync: number | null): void {
    const packed = this.#packed;
    this.#packed = null;
    if (packed !== null) this.#hold.until(this.#unpack(this.#packet as Packet, packed, sync));
    else this.#close(sync);
  }

  async #whenLaidOut(packet: Packet): Promise<void> {
    await this.#control.until(() => this.#control.laidOut || this.#control.giveUp);
    if (this.#control.laidOut) this.#announce(packet);
  }

  /** Tells the writer which pages come, and takes the zero ones out. */
  #announce({ at, block: name, data, zero }: Packet): void {
    const { tables } = this.#writer;
    const block = tables.numberOf(name);
    if (block === undefined)
      throw protocolError(`has pages of the RAMBlock "${name}", which main has not`, at);
    const { usedLength, pageSize } = tables.blocks[block] as { usedLength: number; pageSize: number };
    if (pageSize !== PAGE_SIZE) throw unsupported(`its pages have ${pageSize} bytes on multifd channels`);
    for (const { offset, pages } of [...data, ...zero]) {
      if (offset % pageSize === 0 && offset + pages * pageSize <= usedLength) continue;
      const wrong = offset % pageSize === 0 ? Math.max(offset, usedLength) : offset;
      throw protocolError(`has a page at ${wrong} of "${name}", which has ${usedLength} bytes`, at);
    }
    for (const { offset, pages } of data) this.#writer.expect(block, offset / pageSize, pages);
    for (const { offset, pages } of zero) tables.clear(block, offset / pageSize, pages);
  }

  async #unpack(packet: Packet, packed: Uint8Array, sync: number | null): Promise<void> {
    const unpacker = this.#unpacker as Unpacker;
    for (const piece of await unpacker.unpack(packed, packet.normalPages * PAGE_SIZE, packet.at)) {
      for (let at = 0; at < piece.length; ) {
        const part = piece.subarray(at, at + this.#writer.space.length);
        this.#writer.space.set(part);
        at += part.length;
        if (!this.#writer.filled(part.length)) await this.#writer.spare();
      }
    }
    this.#close(sync);
  }

  #close(sync: number | null): void {
    this.#packet = null;
    if (sync !== null) this.#hold.until(this.#barriers.arriveAt(sync));
  }

  #holdUnless(room: boolean): void {
    if (!room) this.#hold.until(this.#writer.spare());
  }
}

function runsOf(view: PacketView, from: number, until: number): Run[] {
  const runs: Run[] = [];
  let next = -1;
  for (let index = from; index < until; index++) {
    const offset = view.offset(index);
    if (offset === next) (runs.at(-1) as Run).pages++;
    else runs.push({ offset, pages: 1 });
    next = offset + PAGE_SIZE;
  }
  return runs;
}

function unpackerOf(compression: Compression): Unpacker {
  const unpacker = unpackerFor(compression);
  if (unpacker !== null) return unpacker;
  throw unsupported(`its channels are compressed with ${compression}, which only QEMU unpacks`);
}
