import { Buffer } from "node:buffer";
import { protocolError } from "../migration/wire.ts";

/*
 * What a destination in postcopy says on the connection of its migration: migrate_send_rp_* of QEMU 7.2.22 and 10.0.2,
 * migration/migration.c. On the wire: be16 type, be16 length, data.
 */
const TYPE = { SHUT: 1, PONG: 2, REQ_PAGES_ID: 3, REQ_PAGES: 4, RECV_BITMAP: 5, RESUME_ACK: 6 } as const;
const TYPES: ReadonlySet<number> = new Set(Object.values(TYPE));
/** MIGRATION_RESUME_ACK_VALUE. */
const RESUMED = 1;
/** RAMBLOCK_RECV_BITMAP_ENDING, migration/ram.c. */
const BITMAP_ENDING = 0x0123456789abcdefn;

const HEADER_BYTES = 4;
const WORD_BYTES = 8;
/** Of one request: offset and length. */
const RANGE_BYTES = 12;
/** Of the longest message: a range, and a name behind its length. */
const LONGEST = RANGE_BYTES + 1 + 255;

/** Whom the messages are for. */
export interface ReturnPathSink {
  /** The guest, or the destination itself, waits for these pages; `length` is one host page. */
  request(block: string, offset: number, length: number): void;
  pong(number: number): void;
  /** After a recovery: one bit for each page of the block, from the lowest of each byte on, set where it has come. */
  received(block: string, bitmap: Uint8Array): void;
  resumed(): void;
  /** The destination's last word: 0 where all went well. */
  shut(status: number): void;
}

/** Reads the return path. push() throws MultifdError PROTOCOL. */
export class ReturnPath {
  readonly #sink: ReturnPathSink;
  /** Bytes that a RAMBlock's bitmap has; null: there is no such block. */
  readonly #bitmapBytes: (block: string) => number | null;
  /** What has come and is not taken yet. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** With fewer there is nothing to be taken. */
  #needed = HEADER_BYTES;
  /** Of the whole path, before what is held. */
  #offset = 0;
  /** Of the latest request that named one. */
  #block: string | null = null;
  /** Whose bitmap comes next. */
  #bitmapOf: string | null = null;

  constructor(sink: ReturnPathSink, bitmapBytes: (block: string) => number | null) {
    this.#sink = sink;
    this.#bitmapBytes = bitmapBytes;
  }

  /** Takes the next bytes, which are the caller's again afterwards. */
  push(bytes: Uint8Array): void {
    this.#held.push(Buffer.from(bytes));
    this.#heldBytes += bytes.length;
    if (this.#heldBytes < this.#needed) return;
    const all = Buffer.concat(this.#held);
    let at = 0;
    for (;;) {
      const rest = all.subarray(at);
      const taken = this.#bitmapOf === null ? this.#message(rest) : this.#bitmap(rest, this.#bitmapOf);
      if (taken === 0) break;
      at += taken;
      this.#offset += taken;
    }
    this.#held = at === all.length ? [] : [all.subarray(at)];
    this.#heldBytes = all.length - at;
  }

  /** True where so many bytes are here. */
  #has(bytes: Buffer, count: number): boolean {
    this.#needed = count;
    return bytes.length >= count;
  }

  /** @returns bytes taken; 0: not all of it is here */
  #message(bytes: Buffer): number {
    if (!this.#has(bytes, HEADER_BYTES)) return 0;
    const [type, length] = [bytes.readUInt16BE(0), bytes.readUInt16BE(2)];
    if (!TYPES.has(type) || length > LONGEST)
      throw this.#wrong(`has a message of type ${type}, ${length} bytes`);
    const end = HEADER_BYTES + length;
    if (!this.#has(bytes, end)) return 0;
    this.#take(type, bytes.subarray(HEADER_BYTES, end));
    return end;
  }

  #take(type: number, data: Buffer): void {
    if (type === TYPE.REQ_PAGES) this.#request(this.#block, data);
    else if (type === TYPE.REQ_PAGES_ID) {
      this.#block = this.#name(data, RANGE_BYTES);
      this.#request(this.#block, data.subarray(0, RANGE_BYTES));
    } else if (type === TYPE.PONG) this.#sink.pong(this.#word(data));
    else if (type === TYPE.SHUT) this.#sink.shut(this.#word(data));
    else if (type === TYPE.RECV_BITMAP) this.#bitmapOf = this.#name(data, 0);
    else if (this.#word(data) === RESUMED) this.#sink.resumed();
    else throw this.#wrong("does not agree to be resumed");
  }

  #request(block: string | null, data: Buffer): void {
    if (block === null || data.length !== RANGE_BYTES) throw this.#wrong("asks for pages of no RAMBlock");
    const offset = data.readUInt32BE(0) * 2 ** 32 + data.readUInt32BE(4);
    this.#sink.request(block, offset, data.readUInt32BE(8));
  }

  /** be64 size, bitmap, be64 ending: ramblock_recv_bitmap_send. */
  #bitmap(bytes: Buffer, block: string): number {
    if (!this.#has(bytes, WORD_BYTES)) return 0;
    const size = bytes.readBigUInt64BE(0);
    const wanted = this.#bitmapBytes(block);
    if (wanted === null || size !== BigInt(wanted)) {
      throw this.#wrong(`has a bitmap of ${size} bytes for RAMBlock "${block}"`);
    }
    const end = WORD_BYTES + wanted;
    if (!this.#has(bytes, end + WORD_BYTES)) return 0;
    if (bytes.readBigUInt64BE(end) !== BITMAP_ENDING) throw this.#wrong("has a bitmap without its end");
    this.#bitmapOf = null;
    this.#sink.received(block, bytes.subarray(WORD_BYTES, end));
    return end + WORD_BYTES;
  }

  #word(data: Buffer): number {
    if (data.length !== 4) throw this.#wrong(`has ${data.length} bytes where a number of 4 must stand`);
    return data.readUInt32BE(0);
  }

  #name(data: Buffer, at: number): string {
    const end = data.length > at ? at + 1 + (data[at] as number) : -1;
    if (data.length !== end) throw this.#wrong("names no RAMBlock");
    return data.toString("latin1", at + 1);
  }

  #wrong(what: string): Error {
    return protocolError(`the destination's return path ${what}`, this.#offset);
  }
}
