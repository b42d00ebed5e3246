import { setImmediate as nextTurn } from "node:timers/promises";
import { createInflate, type Inflate } from "node:zlib";
import { Decompress } from "fzstd";
import type { Compression } from "../../formats/migration/summary.ts";
import { protocolError } from "../../formats/migration/wire.ts";

/**
 * Unpacks the payloads of one multifd channel. zlib and zstd keep one stream per channel for the whole migration, flushed at
 * the end of each packet (migration/multifd-zlib.c and multifd-zstd.c of QEMU 7.2.22 and 10.0.2), so that payloads can be
 * unpacked in their order only.
 */
export interface Unpacker {
  /**
   * @param length bytes that the payload must unpack to
   * @returns them, in pieces that are the caller's
   * @throws MultifdError PROTOCOL
   */
  unpack(payload: Uint8Array, length: number): Promise<readonly Uint8Array[]>;
}

/** null: no library unpacks this method. */
export function unpackerFor(method: Compression): Unpacker | null {
  if (method === "zlib") return new ZlibUnpacker();
  return method === "zstd" ? new ZstdUnpacker() : null;
}

class ZlibUnpacker implements Unpacker {
  readonly #inflate: Inflate = createInflate({ chunkSize: 128 * 1024 });
  readonly #pieces: Uint8Array[] = [];
  readonly #failed: Promise<never>;
  #bytes = 0;

  constructor() {
    this.#inflate.on("data", (piece: Uint8Array) => {
      this.#pieces.push(piece);
      this.#bytes += piece.length;
    });
    this.#failed = new Promise((_, reject) => this.#inflate.on("error", reject));
    // Looked at where something is waited for.
    this.#failed.catch(() => undefined);
  }

  async unpack(payload: Uint8Array, length: number): Promise<readonly Uint8Array[]> {
    const written = new Promise<void>((resolve, reject) =>
      this.#inflate.write(payload, (error) => (error ? reject(error) : resolve())),
    );
    try {
      await Promise.race([written, this.#failed]);
      // The last piece may be told of a moment after the input is used up.
      await nextTurn();
    } catch (error) {
      throw unreadable("zlib", (error as Error).message);
    }
    const pieces = this.#pieces.splice(0);
    const bytes = this.#bytes;
    this.#bytes = 0;
    return whole("zlib", pieces, bytes, length);
  }
}

class ZstdUnpacker implements Unpacker {
  #pieces: Uint8Array[] = [];
  readonly #decompress = new Decompress((piece) => this.#pieces.push(piece));

  async unpack(payload: Uint8Array, length: number): Promise<readonly Uint8Array[]> {
    this.#pieces = [];
    try {
      this.#decompress.push(payload);
    } catch (error) {
      throw unreadable("zstd", (error as Error).message);
    }
    const bytes = this.#pieces.reduce((sum, piece) => sum + piece.length, 0);
    return whole("zstd", this.#pieces, bytes, length);
  }
}

function whole(method: string, pieces: readonly Uint8Array[], bytes: number, length: number) {
  if (bytes !== length) throw unreadable(method, `${bytes} bytes instead of ${length}`);
  return pieces;
}

function unreadable(method: string, why: string): Error {
  return protocolError(`has a payload that cannot be unpacked with ${method}: ${why}`, 0);
}
