import { Buffer } from "node:buffer";
import { RAM_FLAGS } from "../migration/ram-records.ts";
import { blockNameBytes, PAGE_RECORD_BYTES, RecordWriter } from "../migration/record-writer.ts";
import { PAGE_SIZE } from "../migration/wire.ts";
import { be32, be64, u8 } from "../migration/words.ts";

const SECTION_PART = 0x02;
const SECTION_END = 0x03;
const SECTION_FOOTER = 0x7e;
const SECTION_HEAD_BYTES = 5;
const EOF_BYTE = 0x00;

/**
 * Pages as a source in postcopy sends them: records in PART sections of RAM, in any order (ram_save_target_page and
 * ram_save_iterate, QEMU 7.2.22 and 10.0.2). Each section names its RAMBlock anew, so that none depends on the one before.
 */
export class PageSections {
  readonly #ramId: number;
  /** What ends a section: EOS and footer. */
  readonly end: Buffer;

  constructor(ramId: number) {
    this.#ramId = ramId;
    this.end = Buffer.concat([be64(RAM_FLAGS.EOS), u8(SECTION_FOOTER), be32(ramId)]);
  }

  /** A whole section with the pages whose data `dataOf` answers; null: a page of zeros. */
  whole(block: string, addresses: readonly number[], dataOf: (address: number) => Uint8Array | null): Buffer {
    const most = SECTION_HEAD_BYTES + blockNameBytes(block) + addresses.length * PAGE_RECORD_BYTES;
    const into = Buffer.allocUnsafe(most + this.end.length);
    const records = new RecordWriter();
    let at = this.#begin(into);
    for (const address of addresses) {
      const data = dataOf(address);
      if (data === null) at = records.zero(into, at, block, address);
      else {
        at = records.page(into, at, block, address);
        into.set(data, at);
        at += PAGE_SIZE;
      }
    }
    at += this.end.copy(into, at);
    return into.subarray(0, at);
  }

  /** What stands before the data of a section's first page. */
  head(block: string, address: number): Buffer {
    const into = Buffer.allocUnsafe(SECTION_HEAD_BYTES + 8 + blockNameBytes(block));
    return into.subarray(0, new RecordWriter().page(into, this.#begin(into), block, address));
  }

  /** No page comes any more. */
  endOfRam(): Buffer {
    return Buffer.concat([u8(SECTION_END), be32(this.#ramId), this.end, u8(EOF_BYTE)]);
  }

  #begin(into: Buffer): number {
    into[0] = SECTION_PART;
    into.writeUInt32BE(this.#ramId, 1);
    return SECTION_HEAD_BYTES;
  }
}
