import { MultifdError } from "../../errors.ts";
import { damaged } from "../image/damage.ts";
import type { ByteInput, Steps } from "../migration/byte-input.ts";
import type { MainFacts } from "../migration/main-facts.ts";
import { BLOCK_LIMIT, walkRamSize } from "../migration/ram-list.ts";
import { RAM_FLAGS } from "../migration/ram-records.ts";
import type { RamSections } from "../migration/sections.ts";
import { hexWord } from "../migration/wire.ts";
import { bitmapBytes, type MappedBlock, type RamSection } from "./model.ts";

// MappedRamHeader of QEMU 9.0 to 10.0.2, migration/ram.c: version, page size, bitmap offset, pages offset.
const HEADER_BYTES = 28;
const HEADER_VERSION = 1;
/** save_section_header, migration/savevm.c: type and id, and in START the name "ram", instance and version as well. */
const START_HEADER_BYTES = 17;
const SECTION_HEADER_BYTES = 5;
const EOS_AND_FOOTER_BYTES: number = 8 + 5;
/** What O_DIRECT takes, and what every machine that QEMU saves this way has at least. */
const LEAST_PAGE = 4096;

/**
 * Walks RAM's sections where pages lie at fixed places of the file: mapped_ram_setup_ramblock of QEMU 10.0.2. Each
 * entry of the block list is followed by a header, the bitmap and the pages, which are passed over; no other section
 * has anything but its EOS.
 */
export class RamMap implements RamSections {
  readonly #input: ByteInput;
  readonly #facts: MainFacts;
  readonly #blocks = new Map<string, MappedBlock>();
  readonly #sections: RamSection[] = [];

  constructor(input: ByteInput, facts: MainFacts) {
    this.#input = input;
    this.#facts = facts;
  }

  get blocks(): readonly MappedBlock[] {
    return [...this.#blocks.values()];
  }

  /** Those that have passed, in order. */
  get sections(): readonly RamSection[] {
    return this.#sections;
  }

  *start(): Steps<null> {
    const payload = this.#input.offset;
    let missing = yield* walkRamSize(this.#input, this.#facts);
    while (missing > 0) missing -= (yield* this.#walkBlock(missing)).usedLength;
    this.#facts.ramBlocks = this.blocks.map(({ name, usedLength }) => ({ name, usedLength }));
    return yield* this.#walkEnd(payload - START_HEADER_BYTES, payload);
  }

  *walk(): Steps<null> {
    const payload = this.#input.offset;
    return yield* this.#walkEnd(payload - SECTION_HEADER_BYTES, payload);
  }

  *#walkEnd(start: number, payload: number): Steps<null> {
    const input = this.#input;
    while (!input.ready(8)) yield;
    if (input.u64(0) !== RAM_FLAGS.EOS) {
      throw wrong(input.offset, `RAM has a record ${hexWord(input.u64(0))}, and with mapped-ram it has none`);
    }
    const eos = input.offset;
    input.consume(8);
    this.#sections.push({ start, end: eos + EOS_AND_FOOTER_BYTES, payload, eos });
    return null;
  }

  /** Told from what is missing: see MappedStreamWalker. */
  endsWithoutEnd(): void {}

  *#walkBlock(missing: number): Steps<MappedBlock> {
    const input = this.#input;
    const at = input.offset;
    while (!input.ready(1)) yield;
    const nameLength = input.u8(0);
    const header = 1 + nameLength + 8;
    while (!input.ready(header + HEADER_BYTES)) yield;
    const version = input.u32(header);
    const block: MappedBlock = {
      name: input.text(1, nameLength),
      usedLength: input.u64(1 + nameLength),
      pageSize: input.u64(header + 4),
      bitmapOffset: input.u64(header + 12),
      pagesOffset: input.u64(header + 20),
    };
    input.consume(header + HEADER_BYTES);
    this.#check(block, at, version, missing);
    this.#blocks.set(block.name, block);
    input.jumpTo(block.pagesOffset + block.usedLength);
    return block;
  }

  /** Whatever the file says, all its regions lie in ascending order, apart from each other. */
  #check(block: MappedBlock, at: number, version: number, missing: number): void {
    const { name, usedLength, pageSize, bitmapOffset, pagesOffset } = block;
    if (version > HEADER_VERSION) {
      throw new MultifdError(
        "UNSUPPORTED_VERSION",
        `RAM block "${name}" has a mapped-ram header of version ${version} and this multifd-helper reads version ${HEADER_VERSION}; use a newer one`,
        { version, supported: HEADER_VERSION, offset: at },
      );
    }
    const what = `RAM block "${name}"`;
    if (name === "" || this.#blocks.has(name) || this.#blocks.size === BLOCK_LIMIT) {
      throw wrong(at, "RAM lists a block without a name, or one twice, or too many");
    }
    if (version === 0 || pageSize !== this.#facts.pageSize || pageSize < LEAST_PAGE) {
      throw wrong(
        at,
        `${what} has header version ${version} and pages of ${pageSize} bytes, which cannot be`,
      );
    }
    if (usedLength === 0 || usedLength > missing || usedLength % pageSize !== 0) {
      throw wrong(at, `${what} has ${usedLength} bytes, which cannot be`);
    }
    if (bitmapOffset !== this.#input.offset) {
      throw wrong(at, `${what} has its bitmap at ${bitmapOffset}, not behind its header`);
    }
    const fits = pagesOffset >= bitmapOffset + bitmapBytes(block) && pagesOffset % pageSize === 0;
    if (!fits || !Number.isSafeInteger(pagesOffset + usedLength)) {
      throw wrong(at, `${what} has its pages at ${pagesOffset}, which cannot be`);
    }
  }
}

function wrong(offset: number, problem: string): MultifdError {
  return damaged(`file offset ${offset}`, problem, { offset });
}
