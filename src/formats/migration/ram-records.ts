import { type ByteInput, type Steps, skipBytes } from "./byte-input.ts";
import type { MainFacts } from "./main-facts.ts";
import { walkBlockList } from "./ram-list.ts";
import type { RecordSink } from "./record-sink.ts";
import type { RamSections } from "./sections.ts";
import type { RamBlock } from "./summary.ts";
import { hexWord, protocolError, SYNC_LIMIT } from "./wire.ts";

/** RAM_SAVE_FLAG_* of QEMU 7.2.22 and 10.0.2, migration/ram.c: the low bits of a record's first word. */
export const RAM_FLAGS = {
  ZERO: 0x002,
  MEM_SIZE: 0x004,
  PAGE: 0x008,
  EOS: 0x010,
  CONTINUE: 0x020,
  XBZRLE: 0x040,
  HOOK: 0x080,
  COMPRESS_PAGE: 0x100,
  MULTIFD_FLUSH: 0x200,
} as const;

/** ENCODING_FLAG_XBZRLE, the only encoding there is. */
const XBZRLE_ENCODING = 1;
/** zlib's compressBound() adds 13 bytes and a few per 16 KiB; 7.2's loader allows no more. */
const COMPRESS_SLACK = 64;

/** Walks RAM's sections where pages travel as records. The current block outlives a section, as in QEMU. */
export class RamRecords implements RamSections {
  readonly #input: ByteInput;
  readonly #facts: MainFacts;
  readonly #sink: RecordSink | null;
  #blocks: ReadonlyMap<string, RamBlock> = new Map();
  #block: RamBlock | null = null;

  constructor(input: ByteInput, facts: MainFacts, sink: RecordSink | null = null) {
    this.#input = input;
    this.#facts = facts;
    this.#sink = sink;
  }

  *start(): Steps<string | null> {
    this.#input.keepWith(null);
    yield* walkBlockList(this.#input, this.#facts);
    const { ramBlocks, pageSize, capabilities, subsections } = this.#facts;
    const blocks = ramBlocks ?? [];
    this.#blocks = new Map(blocks.map((block) => [block.name, block]));
    this.#sink?.listed({ blocks, pageSize, capabilities, subsections });
    yield* this.#chooseBarrierMode();
    return yield* this.walk();
  }

  /**
   * The word behind the block list decides how barriers are marked: sources that send MULTIFD_FLUSH at all
   * send the first one there (8.1 and later, for newer machine types); otherwise every EOS is a barrier.
   */
  *#chooseBarrierMode(): Steps {
    const input = this.#input;
    while (!input.ready(8)) yield;
    this.#facts.barrierMode = input.u32(4) === RAM_FLAGS.MULTIFD_FLUSH ? "modern" : "legacy";
  }

  *walk(): Steps<string | null> {
    const sink = this.#sink;
    this.#input.keepWith(null);
    const reason = yield* this.#walkRecords();
    sink?.sectionEnd();
    if (sink !== null) this.#input.keepWith((bytes) => sink.rest(bytes));
    return reason;
  }

  endsWithoutEnd(sectionId: number): void {
    this.#sink?.endsWithoutEnd(sectionId);
  }

  *#walkRecords(): Steps<string | null> {
    const input = this.#input;
    const facts = this.#facts;
    const sink = this.#sink;
    const flagBits = facts.pageSize - 1;
    for (;;) {
      while (sink?.held === true) yield;
      while (!input.ready(8)) yield;
      const at = input.offset;
      const flags = input.u32(4) & flagBits;
      const address = input.u64(0) - flags;
      input.consume(8);
      if (flags === RAM_FLAGS.EOS || flags === RAM_FLAGS.MULTIFD_FLUSH) {
        this.#noteBarrier(flags, address, at);
        if (flags === RAM_FLAGS.EOS) return null;
        continue;
      }
      if (flags === RAM_FLAGS.HOOK) return "RAM has hook records, as RDMA sends them";
      const kind = flags & ~RAM_FLAGS.CONTINUE;
      if (!isPageKind(kind)) {
        throw protocolError(`RAM has a record with the unknown flags ${hexWord(flags)}`, at);
      }
      if (kind === flags) yield* this.#readBlockName(at);
      this.#checkAddress(address, at);
      switch (kind) {
        case RAM_FLAGS.ZERO:
          while (!input.ready(1)) yield;
          if (input.u8(0) !== 0) throw protocolError("a zero page is filled with something else", at);
          input.consume(1);
          facts.zeroRecords += 1;
          if (sink !== null) sink.zero(this.#block as RamBlock, address);
          break;
        case RAM_FLAGS.PAGE:
          if (sink === null) yield* skipBytes(input, facts.pageSize);
          else yield* this.#givePage(sink, address);
          facts.pageRecords += 1;
          break;
        case RAM_FLAGS.XBZRLE:
          sink?.encoded("XBZRLE");
          yield* this.#walkXbzrle(at);
          break;
        case RAM_FLAGS.COMPRESS_PAGE:
          sink?.encoded("the capability compress");
          yield* this.#walkCompressed(at);
          break;
      }
    }
  }

  *#givePage(sink: RecordSink, address: number): Steps {
    const input = this.#input;
    sink.page(this.#block as RamBlock, address);
    input.keepWith((bytes) => sink.pageBytes(bytes));
    yield* skipBytes(input, this.#facts.pageSize);
    input.keepWith(null);
  }

  #noteBarrier(flags: number, address: number, at: number): void {
    const facts = this.#facts;
    if (address !== 0) throw protocolError(`a RAM word with flags ${hexWord(flags)} has an address`, at);
    const modern = flags === RAM_FLAGS.MULTIFD_FLUSH;
    if (modern && facts.barrierMode === "legacy") {
      throw protocolError("RAM has a MULTIFD_FLUSH although its START section had none", at);
    }
    if (modern !== (facts.barrierMode === "modern")) return;
    if (facts.barriers.length === SYNC_LIMIT) {
      throw protocolError(`has more than ${SYNC_LIMIT} barriers, which no migration has`, at);
    }
    facts.barriers.push(at);
    this.#sink?.barrier(facts.barriers.length);
  }

  *#readBlockName(at: number): Steps {
    const input = this.#input;
    while (!input.ready(1)) yield;
    const length = input.u8(0);
    while (!input.ready(1 + length)) yield;
    const name = input.text(1, length);
    const block = this.#blocks.get(name);
    if (block === undefined) throw protocolError("a RAM record names a block that is not listed", at);
    this.#block = block;
    input.consume(1 + length);
  }

  #checkAddress(address: number, at: number): void {
    const block = this.#block;
    if (block === null) throw protocolError("a RAM record continues a block before any was named", at);
    if (address + this.#facts.pageSize > block.usedLength) {
      const where = `${hexWord(address)} of the block "${block.name}"`;
      throw protocolError(`a RAM record lies at ${where}, which has ${block.usedLength} bytes`, at);
    }
  }

  /** u8 encoding, u16 length, then the encoded difference. */
  *#walkXbzrle(at: number): Steps {
    const input = this.#input;
    while (!input.ready(3)) yield;
    const length = input.u16(1);
    if (input.u8(0) !== XBZRLE_ENCODING || length > this.#facts.pageSize) {
      throw protocolError("an XBZRLE page has an unknown encoding or is longer than a page", at);
    }
    input.consume(3);
    yield* skipBytes(input, length);
    this.#facts.pageRecords += 1;
  }

  /** u32 length, then a zlib stream of its own (the capability compress, up to QEMU 9.0). */
  *#walkCompressed(at: number): Steps {
    const input = this.#input;
    while (!input.ready(4)) yield;
    const length = input.u32(0);
    if (length === 0 || length > this.#facts.pageSize + COMPRESS_SLACK) {
      throw protocolError(`a compressed page has ${length} bytes`, at);
    }
    input.consume(4);
    yield* skipBytes(input, length);
    this.#facts.pageRecords += 1;
  }
}

function isPageKind(kind: number): boolean {
  return (
    kind === RAM_FLAGS.ZERO ||
    kind === RAM_FLAGS.PAGE ||
    kind === RAM_FLAGS.XBZRLE ||
    kind === RAM_FLAGS.COMPRESS_PAGE
  );
}
