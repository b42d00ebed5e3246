import { MultifdError } from "../../errors.ts";
import { extentCount, extentsOf } from "./extents.ts";
import type { Channel, ChannelRecord } from "./model.ts";

/** A checksum is a u32. */
const CHECKSUM_BYTES = 4;

/** A checksummed block of a channel and where it lies. */
export interface Block {
  /** Offset in the channel's bytes. */
  readonly position: number;
  /** Offset from the base of the image. */
  readonly offset: number;
  /** Bytes of the channel in it, padding left out: blockBytes, less only in the channel's last block. */
  readonly length: number;
  /** Where its CRC-32 lies, from the base of the image; null for images without checksums. */
  readonly checksumAt: number | null;
}

/** A place in the file and how many bytes of the channel follow there without a gap. */
export interface Run {
  readonly offset: number;
  readonly length: number;
}

/** How many checksummed blocks a channel of this length has. */
export function blockCount(record: Pick<Channel, "length" | "blockBytes">): number {
  return Math.ceil(record.length / record.blockBytes);
}

/** The blocks of a channel in the order of its bytes. The record must have passed checkLayout. */
export function* blocks(record: ChannelRecord): Generator<Block, void, undefined> {
  let position = 0;
  const { checksumsAt } = record;
  for (const extent of extentsOf(record)) {
    for (let within = 0; within < extent.length; within += record.blockBytes) {
      const length = Math.min(record.blockBytes, extent.length - within);
      const number = position / record.blockBytes;
      const checksumAt = checksumsAt === null ? null : checksumsAt + number * CHECKSUM_BYTES;
      yield { position, offset: extent.offset + within, length, checksumAt };
      position += length;
    }
  }
}

/** Finds any byte of a channel. For a walk in order, blocks() is enough. */
export class ExtentMap {
  readonly #extents: Float64Array;
  /** Channel position at which each extent starts. */
  readonly #starts: Float64Array;
  readonly #length: number;

  /** @param record must have passed checkLayout */
  constructor(record: ChannelRecord) {
    this.#extents = record.extents;
    this.#length = record.length;
    this.#starts = new Float64Array(extentCount(record));
    let position = 0;
    let number = 0;
    for (const { length } of extentsOf(record)) {
      this.#starts[number++] = position;
      position += length;
    }
  }

  /** @param position 0 … length - 1 of the channel */
  locate(position: number): Run {
    const number = this.#extentAt(position);
    const offset = this.#extents[2 * number];
    const length = this.#extents[2 * number + 1];
    const start = this.#starts[number];
    if (offset === undefined || length === undefined || start === undefined || position >= this.#length) {
      throw new MultifdError(
        "INTERNAL",
        `byte ${position} of a channel of ${this.#length} bytes was looked up`,
      );
    }
    const within = position - start;
    return { offset: offset + within, length: length - within };
  }

  /** Number of the last extent that starts at or before `position`; -1 when there is none. */
  #extentAt(position: number): number {
    let low = 0;
    let high = this.#starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] as number) <= position) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  }
}
