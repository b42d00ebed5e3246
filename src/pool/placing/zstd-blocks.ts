/** Of a frame. */
const MAGIC = 0xfd2fb528;
const MAGIC_BYTES = 4;
const BLOCK_HEADER_BYTES = 3;
const RLE = 1;
/** What multifd-zstd-level 20, the highest, asks for; our library takes as much memory as the header says. */
const LARGEST_WINDOW = 32 * 1024 * 1024;

/**
 * Looks at the structure of a channel's zstd stream (RFC 8878) before it is unpacked: one frame without an end, of which
 * each payload has whole blocks. A header that asks for much memory, and another frame behind it, would be taken by the
 * library that unpacks.
 */
export class ZstdBlocks {
  #inFrame = false;

  /**
   * @returns where its first block begins: behind the frame's header in the first payload, 0 in all others
   * @throws Error on what no QEMU sends
   */
  check(payload: Uint8Array): number {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    const first = this.#inFrame ? 0 : readHeader(view);
    this.#inFrame = true;
    let at = first;
    while (at < payload.length) {
      if (at + BLOCK_HEADER_BYTES > payload.length) throw new Error("a block is cut");
      const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
      if ((header & 1) !== 0) throw new Error("the stream ends");
      at += BLOCK_HEADER_BYTES + (((header >> 1) & 3) === RLE ? 1 : header >> 3);
    }
    if (at > payload.length) throw new Error("a block is cut");
    return first;
  }
}

/** @returns the header's length */
function readHeader(view: DataView): number {
  if (view.byteLength < MAGIC_BYTES + 2 || view.getUint32(0, true) !== MAGIC)
    throw new Error("no frame begins");
  const descriptor = view.getUint8(MAGIC_BYTES);
  // A single segment, a dictionary or a content size would need to know beforehand what comes.
  if ((descriptor & ~0x04) !== 0) throw new Error(`its frame has the descriptor ${descriptor}`);
  const window = view.getUint8(MAGIC_BYTES + 1);
  const base = 2 ** (10 + (window >> 3));
  const bytes = base + (base / 8) * (window & 7);
  if (bytes > LARGEST_WINDOW) throw new Error(`its window has ${bytes} bytes`);
  return MAGIC_BYTES + 2;
}
