import type { RamBlock } from "./summary.ts";

/** What main says before the first page. */
export interface RamListed {
  readonly blocks: readonly RamBlock[];
  readonly pageSize: number;
  readonly capabilities: readonly string[];
  /** Offset in the stream behind the machine type, where the configuration's subsections begin. */
  readonly subsections: number;
}

/**
 * Whoever wants the RAM that the main channel carries, and the bytes around it. Everything that is no RAM record comes as
 * `rest`, in order: sections that have nothing to do with RAM as they are, and the headers and footers of RAM's own.
 */
export interface RecordSink {
  /** While true, the walker goes no further. */
  readonly held: boolean;
  /** Bytes that are no part of RAM's payload; lent for the call. */
  rest(bytes: Uint8Array): void;
  /** The block list has passed; what came before it was `rest`. */
  listed(ram: RamListed): void;
  /** The payload of a RAM section has ended with its EOS word. */
  sectionEnd(): void;
  /** RAM ends here without a section that says so. @param sectionId that RAM's sections have */
  endsWithoutEnd(sectionId: number): void;
  /** A page that is zero. @param address byte offset within the block */
  zero(block: RamBlock, address: number): void;
  /** A page whose bytes come next, through `pageBytes`. */
  page(block: RamBlock, address: number): void;
  /** Bytes of the page; lent for the call. */
  pageBytes(bytes: Uint8Array): void;
  /** A page that came in an encoding which only QEMU's loader knows. @param what names it, for people */
  encoded(what: string): void;
  /** Barrier number `count`, from 1, has passed. */
  barrier(count: number): void;
  /** RAM cannot be followed any further. */
  lost(reason: string): void;
}
