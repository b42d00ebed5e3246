import { createInflate, type Inflate } from "node:zlib";
import { Decompress } from "fzstd";
import type { Compression } from "../../formats/migration/summary.ts";
import { protocolError } from "../../formats/migration/wire.ts";
import { ZstdBlocks } from "./zstd-blocks.ts";

/**
 * Unpacks the payloads of one multifd channel. zlib and zstd keep one stream per channel for the whole migration, flushed at
 * the end of each packet (migration/multifd-zlib.c and multifd-zstd.c of QEMU 7.2.22 and 10.0.2), so that payloads can be
 * unpacked in their order only. What unpacks to more than its packet may hold is given up as soon as it does.
 */
export interface Unpacker {
  /**
   * @param length bytes that the payload must unpack to
   * @param at offset of its packet in the stream, for errors
   * @returns them, in pieces that are the caller's
   * @throws MultifdError PROTOCOL
   */
  unpack(payload: Uint8Array, length: number, at: number): Promise<readonly Uint8Array[]>;
}

/** null: no library unpacks this method. */
export function unpackerFor(method: Compression): Unpacker | null {
  if (method === "zlib") return new ZlibUnpacker();
  return method === "zstd" ? new ZstdUnpacker() : null;
}

/** What one payload has unpacked to so far. */
class Unpacked {
  readonly #pieces: Uint8Array[] = [];
  readonly #length: number;
  #bytes = 0;

  /** @param length bytes that it must come to */
  constructor(length: number) {
    this.#length = length;
  }

  /** Throws when it is too much. */
  add(piece: Uint8Array): void {
    this.#bytes += piece.length;
    if (this.#bytes > this.#length) throw new Error(`more than ${this.#length} bytes`);
    this.#pieces.push(piece);
  }

  /** Throws when it is not all. */
  whole(): readonly Uint8Array[] {
    if (this.#bytes !== this.#length) throw new Error(`${this.#bytes} bytes instead of ${this.#length}`);
    return this.#pieces;
  }
}

class ZlibUnpacker implements Unpacker {
  readonly #inflate: Inflate = createInflate({ chunkSize: 128 * 1024 });
  #unpacked = new Unpacked(0);
  /** Told of an error whenever it comes: without a promise of it, which would keep all that was ever raced with it. */
  #fail: (error: Error) => void = () => undefined;

  constructor() {
    this.#inflate.on("data", (piece: Uint8Array) => {
      try {
        this.#unpacked.add(piece);
      } catch (error) {
        this.#inflate.destroy(error as Error);
      }
    });
    this.#inflate.on("error", (error) => this.#fail(error));
  }

  async unpack(payload: Uint8Array, length: number, at: number): Promise<readonly Uint8Array[]> {
    this.#unpacked = new Unpacked(length);
    try {
      await new Promise<void>((resolve, reject) => {
        this.#fail = reject;
        // The last piece, or that there was too much, may be told of a moment after the input is used up.
        this.#inflate.write(payload, (error) => (error ? reject(error) : setImmediate(resolve)));
      });
      return this.#unpacked.whole();
    } catch (error) {
      throw unreadable("zlib", error, at);
    }
  }
}

/** The library looks at nothing before it has 18 bytes; a header and a block of one repeated byte have 10. */
const EMPTY_BLOCKS = new Uint8Array(18);

class ZstdUnpacker implements Unpacker {
  readonly #blocks = new ZstdBlocks();
  readonly #decompress = new Decompress((piece) => this.#unpacked.add(piece));
  #unpacked = new Unpacked(0);

  async unpack(payload: Uint8Array, length: number, at: number): Promise<readonly Uint8Array[]> {
    this.#unpacked = new Unpacked(length);
    try {
      const first = this.#blocks.check(payload);
      if (first > 0) {
        this.#decompress.push(payload.subarray(0, first));
        this.#decompress.push(EMPTY_BLOCKS);
      }
      this.#decompress.push(payload.subarray(first));
      return this.#unpacked.whole();
    } catch (error) {
      throw unreadable("zstd", error, at);
    }
  }
}

function unreadable(method: string, error: unknown, at: number): Error {
  const why = error instanceof Error ? error.message : String(error);
  return protocolError(`has a payload that cannot be unpacked with ${method}: ${why}`, at);
}
