import type { Buffer } from "node:buffer";

const PAGE = 4096;

export interface SentPage {
  readonly address: number;
  /** null: it was sent as a page of zeros. */
  readonly bytes: Buffer | null;
}

export interface SectionOfPages {
  readonly block: string;
  readonly pages: readonly SentPage[];
}

/**
 * Reads one PART section of RAM that names its block once, as the loader of QEMU 7.2 and 10.0 does (ram_load_postcopy,
 * migration/ram.c). Shares nothing with the code that writes such sections. Throws where it is anything else.
 */
export function pagesOfSection(bytes: Buffer, ramId: number): SectionOfPages {
  const parsed = parseSection(bytes, ramId);
  if (parsed === null || parsed.end !== bytes.length) throw new Error("this is not one whole section");
  return parsed.section;
}

/** The section at the start of some bytes, and where it ends; null: not all of it is there. */
export function parseSection(bytes: Buffer, ramId: number): { section: SectionOfPages; end: number } | null {
  if (bytes.length < 5) return null;
  if (bytes[0] !== 2 || bytes.readUInt32BE(1) !== ramId) throw new Error("this is no PART section of RAM");
  const pages: SentPage[] = [];
  let block: string | null = null;
  for (let at = 5; bytes.length >= at + 8; ) {
    const flags = bytes.readUInt32BE(at + 4) & (PAGE - 1);
    const address = Number(bytes.readBigUInt64BE(at)) - flags;
    at += 8;
    if (flags === 0x10) return endOfSection(bytes, at, ramId, { block: block ?? "", pages });
    if ((flags & 0x20) === 0) {
      if (bytes.length < at + 1 || bytes.length < at + 1 + (bytes[at] as number)) return null;
      const name = bytes.toString("latin1", at + 1, at + 1 + (bytes[at] as number));
      if (block !== null && block !== name) throw new Error("a section has pages of two blocks");
      block = name;
      at += 1 + name.length;
    }
    if (block === null) throw new Error("a section begins with a record that continues another one");
    const size = sizeOf(flags & ~0x20);
    if (bytes.length < at + size) return null;
    if (size === 1 && bytes[at] !== 0) throw new Error("a page is filled with something else than zeros");
    pages.push({ address, bytes: size === 1 ? null : bytes.subarray(at, at + size) });
    at += size;
  }
  return null;
}

function sizeOf(kind: number): number {
  if (kind === 8) return PAGE;
  if (kind === 2) return 1;
  throw new Error(`a record has the flags ${kind}`);
}

function endOfSection(
  bytes: Buffer,
  at: number,
  ramId: number,
  section: SectionOfPages,
): { section: SectionOfPages; end: number } | null {
  if (bytes.length < at + 5) return null;
  if (bytes[at] !== 0x7e || bytes.readUInt32BE(at + 1) !== ramId)
    throw new Error("a section lacks its footer");
  return { section, end: at + 5 };
}
