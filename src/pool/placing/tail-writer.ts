import { crc32 } from "../../io/crc32.ts";
import { DIRECT_ALIGNMENT, padded, type WriteAt } from "../../io/file-io.ts";
import { alignedBuffer } from "../../io/slab-arena.ts";
import { Gathered } from "./gathered.ts";

/** As much as is gathered before it is written. */
const PIECE_BYTES = 256 * 1024;

/** Writes what the stream has behind the pages: small parts of RAM's sections, and the device state. */
export class TailWriter {
  readonly #write: (bytes: Uint8Array, offset: number) => Promise<void>;
  readonly #pending = new Gathered();
  #writtenBytes = 0;
  #crc = 0;

  /** @param offset file offset of its first byte, a multiple of 4096 */
  constructor(write: WriteAt, fd: number, offset: number) {
    this.#write = (bytes, at) => write(fd, bytes, offset + at);
  }

  /** Takes a copy. */
  put(bytes: Uint8Array): void {
    this.#pending.put(bytes);
  }

  /** Whether so much has gathered that it should be written before more is put. */
  get full(): boolean {
    return this.#pending.length >= PIECE_BYTES;
  }

  /** Writes what makes whole aligned pages. Nothing may be put meanwhile. */
  async drain(): Promise<void> {
    await this.#writeOut(this.#pending.length - (this.#pending.length % DIRECT_ALIGNMENT));
  }

  /** Writes the rest. */
  async finish(): Promise<{ length: number; crc32: number }> {
    const length = this.#writtenBytes + this.#pending.length;
    await this.#writeOut(this.#pending.length);
    return { length, crc32: this.#crc };
  }

  async #writeOut(length: number): Promise<void> {
    if (length === 0) return;
    const bytes = this.#pending.bytes.subarray(0, length);
    const piece = alignedBuffer(padded(length));
    piece.set(bytes);
    this.#crc = crc32(bytes, this.#crc);
    this.#pending.drop(length);
    await this.#write(piece, this.#writtenBytes);
    this.#writtenBytes += length;
  }
}
