import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import { DIRECT_ALIGNMENT, padded, type WriteAt } from "../../io/file-io.ts";
import { alignedBuffer } from "../../io/slab-arena.ts";

/** As much as is gathered before it is written. */
const PIECE_BYTES = 256 * 1024;

/** Writes what the stream has behind the pages: small parts of RAM's sections, and the device state. */
export class TailWriter {
  readonly #write: (bytes: Uint8Array, offset: number) => Promise<void>;
  #pending: Buffer[] = [];
  #pendingBytes = 0;
  #writtenBytes = 0;
  #crc = 0;

  /** @param offset file offset of its first byte, a multiple of 4096 */
  constructor(write: WriteAt, fd: number, offset: number) {
    this.#write = (bytes, at) => write(fd, bytes, offset + at);
  }

  /** Takes a copy. */
  put(bytes: Uint8Array): void {
    this.#pending.push(Buffer.from(bytes));
    this.#pendingBytes += bytes.length;
    this.#crc = crc32(bytes, this.#crc);
  }

  /** Whether so much has gathered that it should be written before more is put. */
  get full(): boolean {
    return this.#pendingBytes >= PIECE_BYTES;
  }

  /** Writes what makes whole aligned pages. Nothing may be put meanwhile. */
  async drain(): Promise<void> {
    await this.#writeOut(this.#pendingBytes - (this.#pendingBytes % DIRECT_ALIGNMENT));
  }

  /** Writes the rest. */
  async finish(): Promise<{ length: number; crc32: number }> {
    const length = this.#writtenBytes + this.#pendingBytes;
    await this.#writeOut(this.#pendingBytes);
    return { length, crc32: this.#crc };
  }

  async #writeOut(length: number): Promise<void> {
    if (length === 0) return;
    const all = Buffer.concat(this.#pending);
    const piece = alignedBuffer(padded(length));
    piece.set(all.subarray(0, length));
    await this.#write(piece, this.#writtenBytes);
    this.#pending = [all.subarray(length)];
    this.#pendingBytes = all.length - length;
    this.#writtenBytes += length;
  }
}
