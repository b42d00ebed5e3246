import { Buffer } from "node:buffer";
import type { Random } from "../support/random.ts";
import type { RandomMigration } from "../support/random-migration.ts";
import { mutate } from "./mutate.ts";

const PAGE = 4096;
const INIT_BYTES = 64;
const PACKET = Buffer.from([0x11, 0x22, 0x33, 0x44, 0, 0, 0, 1]);
/** Where a packet's header has numbers (docs/formats/migration-stream.md), and how many bytes of them. */
const FIELDS: readonly (readonly [at: number, bytes: 4 | 8])[] = [
  ...([
    [8, 4],
    [12, 4],
    [16, 4],
    [20, 4],
    [24, 8],
    [32, 4],
  ] as const),
  ...([
    [320, 8],
    [328, 8],
    [336, 8],
  ] as const),
];
/** Main's head, in which the configuration and the first RAMBlocks stand. */
const HEAD_BYTES = 600;

/** The streams of a migration, main first, some of them changed: as no QEMU, but anybody else may send them. */
export function hostileStreams(random: Random, { main, channels, blocks }: RandomMigration): Buffer[] {
  const streams = [main, ...channels];
  const limits = blocks.map(({ bytes }) => bytes.length);
  for (let left = random.integer(4); left > 0; left--) {
    const victim = random.integer(streams.length);
    const bytes = streams[victim] as Buffer;
    const changed =
      victim === 0 ? changedMain(random, bytes, streams) : changedChannel(random, bytes, streams, limits);
    streams[victim] = changed;
  }
  // Another channel's stream, or the same one twice; main's stays, as a save finds out by itself that it is there twice.
  if (streams.length > 2 && random.integer(12) === 0) {
    const [to, from] = [1 + random.integer(streams.length - 1), 1 + random.integer(streams.length - 1)];
    streams[to] = streams[from] as Buffer;
  }
  return streams;
}

/** Most of main may be pages, whose bytes mean nothing: so one change of two lies in its head. */
function changedMain(random: Random, main: Buffer, others: readonly Buffer[]): Buffer {
  if (random.integer(2) === 0) return mutate(random, main, others);
  const head = mutate(random, main.subarray(0, HEAD_BYTES), others);
  return Buffer.concat([head, main.subarray(HEAD_BYTES)]);
}

function changedChannel(
  random: Random,
  channel: Buffer,
  others: readonly Buffer[],
  limits: readonly number[],
): Buffer {
  const packets = packetsOf(channel);
  if (packets.length === 0 || random.integer(4) === 0) return mutate(random, channel, others);
  const bytes = Buffer.from(channel);
  const [packet, other] = [random.pick(packets), random.pick(packets)];
  switch (random.integer(4)) {
    case 0:
      return Buffer.concat([bytes.subarray(0, packet), bytes.subarray(other)]);
    case 1:
      // Its name of a RAMBlock becomes another's, or none's.
      bytes.copy(bytes, packet + 64, other + 64, other + 320);
      if (random.integer(4) === 0)
        bytes.fill(random.integer(256), packet + 64, packet + 64 + random.integer(257));
      return bytes;
    default:
      for (let left = 1 + random.integer(3); left > 0; left--) setField(random, bytes, packet, limits);
      return bytes;
  }
}

function setField(random: Random, bytes: Buffer, packet: number, limits: readonly number[]): void {
  const [at, width] = random.pick(FIELDS);
  if (packet + at + width > bytes.length) return;
  const limit = random.pick(limits);
  const value = random.pick([
    0,
    1,
    2,
    127,
    128,
    129,
    PAGE - 1,
    PAGE,
    limit - PAGE,
    limit,
    limit + PAGE,
    2 ** 31,
    2 ** 32 - 1,
  ]);
  if (width === 4) bytes.writeUInt32BE(random.pick([value, 1 << random.integer(31)]), packet + at);
  else bytes.writeBigUInt64BE(BigInt(value) << BigInt(random.pick([0, 0, 0, 12, 20, 31])), packet + at);
}

/** Where packets begin; what looks like one in a page counts, too. */
function packetsOf(channel: Buffer): number[] {
  const found: number[] = [];
  for (let at = channel.indexOf(PACKET, INIT_BYTES); at >= 0; at = channel.indexOf(PACKET, at + 1))
    found.push(at);
  return found;
}
