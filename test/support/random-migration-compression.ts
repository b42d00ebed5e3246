import { Buffer } from "node:buffer";
import { constants, deflateRawSync } from "node:zlib";
import { ZstdWriter } from "./plain-reader/zstd.ts";
import type { MigrationShape } from "./random-migration-shape.ts";

/** multifd-compression of one channel: every payload goes on where the one before it ended. */
export interface Compressor {
  /** Bits for the flags of packets with pages. */
  readonly method: number;
  write(raw: Buffer): Buffer;
  end(): void;
}

export function compressorFor({ compression }: MigrationShape): Compressor {
  if (compression === "zlib") return new ZlibCompressor();
  if (compression === "none") return { method: 0, write: (raw) => raw, end: () => undefined };
  const zstd = new ZstdWriter();
  return { method: 0x04, write: (raw) => zstd.write(raw), end: () => zstd.end() };
}

/** Each payload is a stretch of the channel's one zlib stream up to a sync flush, and refers to what came before it. */
class ZlibCompressor implements Compressor {
  readonly method = 0x02;
  /** As far back as references reach; null: nothing was written. */
  #window: Buffer | null = null;

  write(raw: Buffer): Buffer {
    const before = this.#window;
    const options = { level: 1, finishFlush: constants.Z_SYNC_FLUSH };
    const deflated = deflateRawSync(raw, before === null ? options : { ...options, dictionary: before });
    this.#window = Buffer.concat([before ?? Buffer.alloc(0), raw]).subarray(-32 * 1024);
    return before === null ? Buffer.concat([Buffer.from([0x78, 0x01]), deflated]) : deflated;
  }

  end(): void {}
}
