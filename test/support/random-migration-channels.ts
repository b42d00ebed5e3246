import { Buffer } from "node:buffer";
import type { Random } from "./random.ts";
import { type Compressor, compressorFor } from "./random-migration-compression.ts";
import type { Send } from "./random-migration-pages.ts";
import type { MigrationShape } from "./random-migration-shape.ts";
import { initPacket } from "./stream-builder.ts";

const PAGES_PER_PACKET = 128;
const HEADER_BYTES = 1344;
const SYNC = 0x01;

/** The streams of all channels, each cut behind its SYNCs: init packet and the first SYNC, then an epoch at a time, then what is left. */
export function channelSteps(
  shape: MigrationShape,
  epochs: readonly (readonly Send[])[],
  uuid: string,
  random: Random,
): Buffer[][] {
  const writers = Array.from(
    { length: shape.channels },
    (_, id) => new ChannelWriter(id, uuid, shape, random),
  );
  if (writers.length === 0) return [];
  const numbers = { next: 0 };
  for (const writer of writers) writer.sync([], numbers);
  const unfair = random.pick([0, 0.5, 1]);
  for (const epoch of epochs) {
    const queues = writers.map((): Send[][] => []);
    for (const pages of packetsOf(
      epoch.filter((send) => inPackets(send, shape)),
      shape,
      random,
    )) {
      const taker = random.fraction() < unfair ? 0 : random.integer(writers.length);
      queues[taker]?.push(pages);
    }
    for (const [n, writer] of writers.entries()) writer.sync(queues[n] ?? [], numbers);
  }
  return writers.map((writer) => writer.steps());
}

function inPackets({ data }: Send, { zeroPages }: MigrationShape): boolean {
  return data !== null || zeroPages === "multifd";
}

/** Neighbours in the scan share a packet as long as they are of one block. */
function packetsOf(sends: readonly Send[], { style }: MigrationShape, random: Random): Send[][] {
  const packets: Send[][] = [];
  let room = 0;
  for (const send of sends) {
    const last = packets.at(-1);
    if (last !== undefined && last[0]?.block === send.block && last.length < room) {
      last.push(send);
      continue;
    }
    room = random.pick([PAGES_PER_PACKET, 1 + random.integer(PAGES_PER_PACKET), 1 + random.integer(8)]);
    // 7.2's race: the last page of a full packet comes again as the first one of the next, which another channel takes.
    const again = last?.at(-1);
    const repeats = style === "7.2" && again?.block === send.block && room > 1 && random.integer(4) === 0;
    packets.push(repeats && again !== undefined ? [again, send] : [send]);
  }
  return packets;
}

/** One channel. Its header is written over again and again, as 7.2 does it, so that what a packet does not set is stale. */
class ChannelWriter {
  readonly #shape: MigrationShape;
  readonly #random: Random;
  readonly #header = Buffer.alloc(HEADER_BYTES);
  /** Pieces between two SYNCs. */
  readonly #steps: Buffer[][];
  readonly #compressor: Compressor;

  constructor(id: number, uuid: string, shape: MigrationShape, random: Random) {
    this.#shape = shape;
    this.#random = random;
    this.#steps = [[initPacket(id, uuid)]];
    this.#compressor = compressorFor(shape);
  }

  /** To be called once, at the end. */
  steps(): Buffer[] {
    this.#compressor.end();
    return this.#steps.map((pieces) => Buffer.concat(pieces));
  }

  /** These packets, and a SYNC with the last one or behind it. */
  sync(packets: readonly (readonly Send[])[], numbers: { next: number }): void {
    const last = packets.at(-1);
    const merged = this.#shape.style === "7.2" && last !== undefined && this.#random.integer(2) === 0;
    for (const pages of merged ? packets.slice(0, -1) : packets) this.#put(pages, 0, numbers);
    this.#put(merged ? last : [], SYNC, numbers);
    const early = this.#random.integer(2) === 0;
    // The thread finds its second order only after the first: an empty packet, sent at once or with the next epoch.
    if (merged && early) this.#put([], 0, numbers);
    this.#steps.push([]);
    if (merged && !early) this.#put([], 0, numbers);
  }

  #put(pages: readonly Send[], sync: number, numbers: { next: number }): void {
    const old = this.#shape.style === "7.2";
    const header = this.#header;
    const sorted = old ? pages : zeroPagesLast(pages);
    const normal = sorted.flatMap(({ data }) => (data === null ? [] : [data]));
    const payload = normal.length === 0 ? null : this.#compressor.write(Buffer.concat(normal));
    const method = pages.length > 0 ? this.#compressor.method : 0;
    if (!old) header.fill(0);
    header.writeUInt32BE(0x1122_3344, 0);
    header.writeUInt32BE(1, 4);
    header.writeUInt32BE(sync | method, 8);
    header.writeUInt32BE(!old && pages.length === 0 ? 0 : PAGES_PER_PACKET, 12);
    header.writeUInt32BE(normal.length, 16);
    if (payload !== null) header.writeUInt32BE(payload.length, 20);
    header.writeBigUInt64BE(BigInt(this.#number(old, numbers)), 24);
    header.writeUInt32BE(sorted.length - normal.length, 32);
    const [first] = sorted;
    if (first !== undefined) header.fill(0, 64, 320).write(first.block, 64, "latin1");
    for (const [n, { offset }] of sorted.entries()) header.writeBigUInt64BE(BigInt(offset), 320 + 8 * n);
    this.#steps.at(-1)?.push(Buffer.from(header));
    if (payload !== null) this.#steps.at(-1)?.push(payload);
  }

  /** 7.2's numbers repeat and have holes. */
  #number(old: boolean, numbers: { next: number }): number {
    if (old && this.#random.integer(4) === 0)
      return numbers.next + this.#random.integer(3) - (numbers.next > 0 ? 1 : 0);
    return numbers.next++;
  }
}

/** As QEMU 9.0 and later (migration/multifd-zero-page.c) sorts a packet: each zero page changes places with the last one not looked at. */
function zeroPagesLast(pages: readonly Send[]): Send[] {
  const sorted = [...pages];
  for (let at = 0, end = sorted.length - 1; at <= end; ) {
    const page = sorted[at] as Send;
    if (page.data !== null) {
      at++;
      continue;
    }
    sorted[at] = sorted[end] as Send;
    sorted[end--] = page;
  }
  return sorted;
}
