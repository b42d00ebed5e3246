import { hash } from "node:crypto";
import { bitmapBytes, type MappedBlock } from "../../formats/mapped-ram/model.ts";

/** The memory behind the tables, as it goes to every worker of a run. */
export interface RamMemory {
  /** JSON of the blocks, once they are known. */
  readonly layout: SharedArrayBuffer;
  /** The blocks' bitmaps as they go to the file, one behind the other. */
  readonly bitmaps: SharedArrayBuffer;
  /** A bit for each page in the same places: it has, or may have, room in the file that it does not need unless it is present. */
  readonly roomy: SharedArrayBuffer;
  /** CRC-32 of each page, in the order of the blocks; null: none. */
  readonly checksums: SharedArrayBuffer | null;
  /** 64 bits of a digest of each page; null: none. */
  readonly digests: SharedArrayBuffer | null;
}

/** How much a SharedArrayBuffer may hold in Node 20: checksums for 4 TiB of RAM. */
const MOST_BYTES = 2 ** 32 - 2 ** 16;
const CHECKSUM_BYTES = 4;
/** Also without checksums: a page's number fits into 32 bits everywhere. */
const MOST_PAGES = 2 ** 30;
const DIGEST_BYTES = 8;

/** Untouched memory costs nothing; what it will be is known when main has listed its blocks. */
export function reserveRamMemory(what: "checksums" | "digests" | "presence"): RamMemory {
  const growable = (): SharedArrayBuffer => new SharedArrayBuffer(0, { maxByteLength: MOST_BYTES });
  return {
    layout: growable(),
    bitmaps: growable(),
    roomy: growable(),
    checksums: what === "checksums" ? growable() : null,
    digests: what === "digests" ? growable() : null,
  };
}

/**
 * What is known of every page while a save places them: whether it is in the file, and its checksum. 4 bytes and two bits
 * for each page, shared by all workers. Of two writers of one page, the later one in the order of epochs comes later in time.
 */
export class RamTables {
  readonly blocks: readonly MappedBlock[];
  readonly #numbers: ReadonlyMap<string, number>;
  /** Where each block begins among the bits and among the checksums. */
  readonly #firstBit: readonly number[];
  readonly #firstPage: readonly number[];
  readonly #bits: Uint8Array;
  readonly #roomy: Uint8Array;
  readonly #checksums: Int32Array | null;
  readonly #digests: BigUint64Array | null;

  /** To be made only once a layout was published. */
  constructor(memory: RamMemory) {
    const json = Buffer.from(new Uint8Array(memory.layout)).toString("utf8");
    const blocks = JSON.parse(json) as readonly MappedBlock[];
    const { firstBit, firstPage } = placesOf(blocks);
    this.blocks = blocks;
    this.#numbers = new Map(blocks.map(({ name }, number) => [name, number]));
    this.#firstBit = firstBit;
    this.#firstPage = firstPage;
    // Views of fixed length: those that follow a growing buffer are slower.
    this.#bits = new Uint8Array(memory.bitmaps, 0, memory.bitmaps.byteLength);
    this.#roomy = new Uint8Array(memory.roomy, 0, memory.roomy.byteLength);
    const { checksums, digests } = memory;
    this.#checksums =
      checksums === null ? null : new Int32Array(checksums, 0, checksums.byteLength / CHECKSUM_BYTES);
    this.#digests =
      digests === null ? null : new BigUint64Array(digests, 0, digests.byteLength / DIGEST_BYTES);
  }

  /** Makes room for these blocks. The caller tells the others afterwards. Throws RangeError when there are too many pages. */
  static publish(memory: RamMemory, blocks: readonly MappedBlock[]): void {
    const { bitmapsBytes, pages } = placesOf(blocks);
    if (pages > MOST_PAGES) throw new RangeError(`${pages} pages`);
    memory.bitmaps.grow(bitmapsBytes);
    memory.roomy.grow(bitmapsBytes);
    memory.checksums?.grow(pages * CHECKSUM_BYTES);
    memory.digests?.grow(pages * DIGEST_BYTES);
    const json = Buffer.from(JSON.stringify(blocks));
    memory.layout.grow(json.length);
    new Uint8Array(memory.layout).set(json);
  }

  /** Number of a block, by its name; undefined: there is none. */
  numberOf(name: string): number | undefined {
    return this.#numbers.get(name);
  }

  /** @param page number of the first page within its block */
  setPresent(block: number, page: number, count: number): void {
    setBits(this.#bits, (this.#firstBit[block] as number) + page, count);
  }

  /** Room in the file is reserved for these pages. */
  setRoomy(block: number, page: number, count: number): void {
    setBits(this.#roomy, (this.#firstBit[block] as number) + page, count);
  }

  clear(block: number, page: number, count: number): void {
    const start = (this.#firstBit[block] as number) + page;
    for (let bit = start; bit < start + count; bit++) {
      const byte = Math.floor(bit / 8);
      const mask = 1 << (bit & 7);
      if (((this.#bits[byte] as number) & mask) === 0) continue;
      Atomics.and(this.#bits, byte, ~mask);
      // It was written in an earlier epoch.
      Atomics.or(this.#roomy, byte, mask);
    }
  }

  setChecksum(block: number, page: number, crc: number): void {
    if (this.#checksums !== null) this.#checksums[(this.#firstPage[block] as number) + page] = crc;
  }

  get hasChecksums(): boolean {
    return this.#checksums !== null;
  }

  setDigest(block: number, page: number, digest: bigint): void {
    if (this.#digests !== null) this.#digests[(this.#firstPage[block] as number) + page] = digest;
  }

  /** Whether pages have to be looked at: for checksums, or for digests. */
  get hasSums(): boolean {
    return this.#checksums !== null || this.#digests !== null;
  }

  /** The bitmap of a block, as it goes to the file. */
  bitmap(block: number): Uint8Array {
    return this.#ofBlock(this.#bits, block);
  }

  /** The pages of a block that may have room in the file, present or not. */
  roomy(block: number): Uint8Array {
    return this.#ofBlock(this.#roomy, block);
  }

  #ofBlock(bits: Uint8Array, block: number): Uint8Array {
    const start = (this.#firstBit[block] as number) / 8;
    return bits.subarray(start, start + bitmapBytes(this.blocks[block] as MappedBlock));
  }

  /** Checksums of a block's pages, with a sign; those of pages that are not present mean nothing. */
  checksums(block: number): Int32Array {
    const { start, end } = this.#pagesOf(block);
    return (this.#checksums ?? new Int32Array(0)).subarray(start, end);
  }

  /** Digests of a block's pages; those of pages that are not present mean nothing. */
  digests(block: number): BigUint64Array {
    const { start, end } = this.#pagesOf(block);
    return (this.#digests ?? new BigUint64Array(0)).subarray(start, end);
  }

  #pagesOf(block: number): { start: number; end: number } {
    const start = this.#firstPage[block] as number;
    const { usedLength, pageSize } = this.blocks[block] as MappedBlock;
    return { start, end: start + usedLength / pageSize };
  }
}

/** 64 bits that two different pages have alike once in 10^19 times: of SHA-1, which processors have instructions for. */
export function digestOf(page: Uint8Array): bigint {
  return hash("sha1", page, "buffer").readBigUInt64LE(0);
}

/** A byte at a time; others may set its other bits meanwhile. */
function setBits(bits: Uint8Array, first: number, count: number): void {
  const end = first + count;
  for (let bit = first; bit < end; ) {
    const next = Math.min(end, bit - (bit & 7) + 8);
    Atomics.or(bits, Math.floor(bit / 8), ((1 << (next - bit)) - 1) << (bit & 7));
    bit = next;
  }
}

function placesOf(blocks: readonly MappedBlock[]): {
  readonly firstBit: readonly number[];
  readonly firstPage: readonly number[];
  readonly bitmapsBytes: number;
  readonly pages: number;
} {
  const firstBit: number[] = [];
  const firstPage: number[] = [];
  let bitmapsBytes = 0;
  let pages = 0;
  for (const block of blocks) {
    firstBit.push(bitmapsBytes * 8);
    firstPage.push(pages);
    bitmapsBytes += bitmapBytes(block);
    pages += block.usedLength / block.pageSize;
  }
  return { firstBit, firstPage, bitmapsBytes, pages };
}
