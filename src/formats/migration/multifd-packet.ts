import { ByteInput, ResumableParser, type Steps } from "./byte-input.ts";
import { type PacketSink, PacketView } from "./packet-sink.ts";
import type { Compression, MultifdSummary, Walker } from "./summary.ts";
import { hexWord, MULTIFD_MAGIC, PAGE_SIZE, protocolError, SYNC_LIMIT, uuidText } from "./wire.ts";

// Layouts and flags: MultiFDInit_t, MultiFDPacket_t, MultiFDPacketHdr_t, MultiFDPacketDeviceState_t and
// MULTIFD_FLAG_* of QEMU 7.2.22 and 10.0.2, migration/multifd.{h,c}. All fields are big-endian.
export const MULTIFD_VERSION = 1;
/** Sent once, first: magic, version, uuid[16], u8 id, unused up to 64 bytes. */
export const INIT_BYTES = 64;
/** magic, version, flags: what every later packet begins with. */
export const COMMON_BYTES = 12;
/** MULTIFD_PACKET_SIZE (512 KiB) / page size; also in packets whose pages_alloc says 0 (QEMU 10's SYNC). */
export const PAGES_PER_PACKET = 128;
/** 64 fixed bytes, ramblock[256], then an offset (u64) for each possible page, used or not. */
export const PACKET_BYTES: number = 64 + 256 + 8 * PAGES_PER_PACKET;
/** Device state (QEMU 10): common, idstr[256], u32 instance_id, u32 next_packet_size. */
export const DEVICE_STATE_BYTES: number = COMMON_BYTES + 256 + 4 + 4;

export const FLAG_SYNC = 0x01;
export const FLAG_DEVICE_STATE = 0x40;
const METHOD_MASK = 0x3e;
const KNOWN_FLAGS = FLAG_SYNC | METHOD_MASK | FLAG_DEVICE_STATE;

/** The method bits of the flags; QEMU 7.2 knows the first three. */
export const METHODS: Readonly<Record<Compression, number>> = {
  none: 0x00,
  zlib: 0x02,
  zstd: 0x04,
  qpl: 0x08,
  uadk: 0x10,
  qatzip: 0x20,
};
const METHOD_NAMES: ReadonlyMap<number, Compression> = new Map(
  Object.entries(METHODS).map(([name, bits]) => [bits, name as Compression]),
);

/**
 * No method makes a packet's 512 KiB of pages much bigger: QEMU gives zlib and zstd buffers of about twice
 * that, and qpl and uadk fall back to the raw page behind a 4-byte length. Four times is beyond all of them.
 */
const COMPRESSED_LIMIT: number = 4 * PAGES_PER_PACKET * PAGE_SIZE;

interface Tally {
  id: number | null;
  uuid: string | null;
  /** Offset behind the last whole packet. */
  boundary: number;
  packets: number;
  syncEnds: number[];
  normalPages: number;
  zeroPages: number;
  deviceStatePackets: number;
  compression: Compression | null;
}

/** Walks one multifd channel: constant work for each packet, nothing allocated for it, no payload looked at. */
export class MultifdWalker implements Walker<MultifdSummary> {
  readonly #input = new ByteInput();
  readonly #parser: ResumableParser;
  readonly #tally: Tally = {
    id: null,
    uuid: null,
    boundary: 0,
    packets: 0,
    syncEnds: [],
    normalPages: 0,
    zeroPages: 0,
    deviceStatePackets: 0,
    compression: null,
  };

  /** @param sink told of every packet, where somebody wants the pages */
  constructor(sink: PacketSink | null = null) {
    this.#parser = new ResumableParser(this.#input, walkChannel(this.#input, this.#tally, sink));
  }

  /** How many bytes the next thing that can be read lacks: never beyond the end of a header or a payload. */
  get wanted(): number {
    return this.#input.wanted;
  }

  /** Channel number; null until the init packet has passed. */
  get id(): number | null {
    return this.#tally.id;
  }

  /** VM UUID in textual form; null until the init packet has passed. */
  get uuid(): string | null {
    return this.#tally.uuid;
  }

  push(chunk: Uint8Array): void {
    this.#parser.push(chunk);
  }

  /** Throws PROTOCOL when the stream ended inside the init packet, since nothing then says whose channel it was. */
  finish(): MultifdSummary {
    this.#parser.rethrow();
    const { id, uuid, boundary, ...counts } = this.#tally;
    const bytes = this.#input.fed;
    if (id === null || uuid === null) {
      throw protocolError(`ended after ${bytes} bytes, before saying what it is`, bytes);
    }
    return { kind: "multifd", id, uuid, bytes, ...counts, atPacketBoundary: boundary === bytes };
  }
}

function* walkChannel(input: ByteInput, tally: Tally, sink: PacketSink | null): Steps<never> {
  const view = new PacketView(input);
  while (!input.ready(INIT_BYTES)) yield;
  readInit(input, tally);
  input.consume(INIT_BYTES);
  tally.boundary = input.offset;

  for (;;) {
    while (!input.ready(COMMON_BYTES)) yield;
    const flags = readFlags(input, tally);
    const headerBytes = flags === FLAG_DEVICE_STATE ? DEVICE_STATE_BYTES : PACKET_BYTES;
    while (!input.ready(headerBytes)) yield;
    const payloadBytes =
      flags === FLAG_DEVICE_STATE ? readDeviceState(input, tally) : readPages(input, tally, flags);
    if (sink !== null) tellPacket(sink, view, flags, payloadBytes);
    input.consume(headerBytes);
    // Not skipBytes(): delegating to a generator would allocate one for each packet.
    for (let left = payloadBytes - input.skip(payloadBytes); left > 0; left -= input.skip(left)) yield;
    tally.packets += 1;
    tally.boundary = input.offset;
    // 7.2 merges SYNC with data: the pages come first, so the SYNC takes effect behind the payload.
    const sync = (flags & FLAG_SYNC) !== 0;
    if (sync) noteSync(input, tally);
    sink?.end(sync ? tally.syncEnds.length : null);
  }
}

function tellPacket(sink: PacketSink, view: PacketView, flags: number, payloadBytes: number): void {
  if (flags === FLAG_DEVICE_STATE) sink.deviceState();
  else sink.pages(view, METHOD_NAMES.get(flags & METHOD_MASK) ?? "none", payloadBytes);
}

function noteSync(input: ByteInput, tally: Tally): void {
  if (tally.syncEnds.length === SYNC_LIMIT) {
    throw packetError(input, tally, `has more than ${SYNC_LIMIT} SYNCs, which no migration has`);
  }
  tally.syncEnds.push(tally.boundary);
}

function readInit(input: ByteInput, tally: Tally): void {
  readMagic(input, tally);
  const id = input.u8(24);
  // multifd-channels is at most 255, so the highest number is 254.
  if (id === 255) throw protocolError("calls itself number 255", 24);
  tally.uuid = uuidText(input.hex(8, 16));
  tally.id = id;
}

function readMagic(input: ByteInput, tally: Tally): void {
  const magic = input.u32(0);
  if (magic !== MULTIFD_MAGIC) {
    throw packetError(input, tally, `has ${hexWord(magic)} where a packet must begin with 0x11223344`);
  }
  const version = input.u32(4);
  if (version !== MULTIFD_VERSION) {
    throw packetError(input, tally, `has a packet of version ${version}; only version 1 is known`);
  }
}

function readFlags(input: ByteInput, tally: Tally): number {
  readMagic(input, tally);
  const flags = input.u32(8);
  const deviceStateWithMore = (flags & FLAG_DEVICE_STATE) !== 0 && flags !== FLAG_DEVICE_STATE;
  if ((flags & ~KNOWN_FLAGS) !== 0 || deviceStateWithMore || !METHOD_NAMES.has(flags & METHOD_MASK)) {
    throw packetError(input, tally, `has a packet with the impossible flags ${hexWord(flags)}`);
  }
  return flags;
}

function readDeviceState(input: ByteInput, tally: Tally): number {
  tally.deviceStatePackets += 1;
  return input.u32(COMMON_BYTES + 256 + 4);
}

function readPages(input: ByteInput, tally: Tally, flags: number): number {
  const allocated = input.u32(12);
  const normal = input.u32(16);
  const zero = input.u32(32);
  if (allocated > PAGES_PER_PACKET || normal + zero > PAGES_PER_PACKET) {
    const counts = `${allocated} allocated, ${normal} normal and ${zero} zero pages`;
    throw packetError(input, tally, `has a packet with ${counts}; no packet holds more than 128`);
  }
  if (normal + zero === 0 && (flags & METHOD_MASK) !== 0) {
    throw packetError(
      input,
      tally,
      `has a packet without pages whose flags ${hexWord(flags)} name a compression`,
    );
  }
  if (normal + zero > 0 && input.u8(64) === 0) {
    throw packetError(input, tally, "has a packet with pages of a RAMBlock without a name");
  }
  tally.normalPages += normal;
  tally.zeroPages += zero;
  // next_packet_size is stale in 7.2's packets without data, so it counts only where there is data.
  return normal === 0 ? 0 : readPayloadSize(input, tally, flags, normal);
}

function readPayloadSize(input: ByteInput, tally: Tally, flags: number, normal: number): number {
  const method = METHOD_NAMES.get(flags & METHOD_MASK) ?? "none";
  if (tally.compression !== null && tally.compression !== method) {
    throw packetError(input, tally, `switches its compression from ${tally.compression} to ${method}`);
  }
  tally.compression = method;
  const size = input.u32(20);
  const possible = method === "none" ? size === normal * PAGE_SIZE : size > 0 && size <= COMPRESSED_LIMIT;
  if (!possible) {
    const payload = `${size} bytes of payload for ${normal} pages with compression ${method}`;
    throw packetError(input, tally, `has a packet with ${payload}, which cannot be`);
  }
  return size;
}

function packetError(input: ByteInput, tally: Tally, what: string): Error {
  const details = tally.id === null ? {} : { channel: tally.id };
  return protocolError(what, input.offset, details);
}
