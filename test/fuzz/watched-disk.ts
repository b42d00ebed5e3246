import assert from "node:assert/strict";
import { crc32 } from "node:zlib";
import { NOWHERE } from "../../src/formats/mapped-ram/layout.ts";
import type { MappedBlock } from "../../src/formats/mapped-ram/model.ts";
import type { WriteAt } from "../../src/io/file-io.ts";
import type { PlaceWork } from "../../src/pool/messages.ts";
import { type RamMemory, RamTables } from "../../src/pool/placing/ram-tables.ts";

/** Stands for the image's descriptor. */
export const FD = 1234;

/** Sees that nothing is written but pages to their places, and the stream around them behind all of them. */
export class WatchedDisk {
  readonly #ram: RamMemory;
  readonly #base: number;
  readonly #mainBytes: number;
  /** File offsets of pages, with the checksums of what was written there; null: more than once. */
  readonly #pages = new Map<number, number | null>();
  #tables: RamTables | null = null;
  #defect: unknown = null;

  constructor(ram: RamMemory, base: number, mainBytes: number) {
    this.#ram = ram;
    this.#base = base;
    this.#mainBytes = mainBytes;
  }

  readonly write: WriteAt = async (fd, bytes, position) => {
    try {
      this.#take(fd, bytes, position);
    } catch (error) {
      this.#defect ??= error;
    }
    await Promise.resolve();
  };

  /** Whatever came of it, nothing may have been written, or noted, where it does not belong. */
  expectSane(): void {
    if (this.#defect !== null) throw this.#defect;
    if (this.#ram.layout.byteLength === 0) return;
    const tables = this.#laidOut();
    for (const [number, { usedLength, pageSize }] of tables.blocks.entries()) {
      for (const bits of [tables.bitmap(number), tables.roomy(number)]) {
        for (let page = usedLength / pageSize; page < bits.length * 8; page++) {
          assert.ok(!isSet(bits, page), `a bit behind the last page of block ${number}`);
        }
      }
    }
  }

  /** All that is said to be there was written, and is what its checksum says. */
  expectWhole({ kind }: PlaceWork): void {
    if (kind === "digest") return;
    const tables = this.#laidOut();
    for (const [number, block] of tables.blocks.entries()) {
      const [bits, sums] = [tables.bitmap(number), tables.checksums(number)];
      for (let page = 0; page < block.usedLength / block.pageSize; page++) {
        if (!isSet(bits, page)) continue;
        const written = this.#pages.get(block.pagesOffset + page * block.pageSize);
        assert.notEqual(
          written,
          undefined,
          `page ${page} of block ${number} is present, and was not written`,
        );
        if (written !== null && tables.hasChecksums)
          assert.equal((sums[page] as number) >>> 0, written, `the checksum of page ${page}`);
      }
    }
  }

  #laidOut(): RamTables {
    this.#tables ??= new RamTables(this.#ram);
    return this.#tables;
  }

  #take(fd: number, bytes: Uint8Array, position: number): void {
    assert.equal(fd, FD);
    assert.ok(bytes.length > 0 && bytes.length % 4096 === 0 && position % 4096 === 0, "not aligned");
    const { blocks } = this.#laidOut();
    const end = position + bytes.length;
    const home = blocks.find(
      ({ pagesOffset, usedLength }) => position >= pagesOffset && end <= pagesOffset + usedLength,
    );
    if (home !== undefined) this.#note(home, bytes, position);
    else {
      const behind = Math.max(
        this.#base,
        ...blocks.map(({ pagesOffset, usedLength }) => pagesOffset + usedLength),
      );
      const inTail = position >= behind && end <= behind + this.#mainBytes + 2 * 4096;
      assert.ok(inTail, `${bytes.length} bytes were written to ${position}, where no page belongs`);
    }
  }

  #note({ pagesOffset, pageSize }: MappedBlock, bytes: Uint8Array, position: number): void {
    assert.notEqual(pagesOffset, NOWHERE);
    assert.equal((position - pagesOffset) % pageSize, 0, "not at a page's place");
    for (let at = 0; at < bytes.length; at += pageSize) {
      const again = this.#pages.has(position + at);
      this.#pages.set(position + at, again ? null : crc32(bytes.subarray(at, at + pageSize)));
    }
  }
}

function isSet(bits: Uint8Array, page: number): boolean {
  return (((bits[page >> 3] as number) >> (page & 7)) & 1) === 1;
}
