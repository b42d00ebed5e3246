import { Buffer } from "node:buffer";
import { readFile } from "node:fs/promises";
import { Cursor, demand, isZero } from "./cursor.ts";
import { FLAG, type ListedBlock, type MainStream, PAGE, readBlockList, readMain } from "./main-stream.ts";

const ALIGNMENT = 2 ** 20;

export interface MappedBlock {
  readonly name: string;
  /** As a destination with empty RAM has it afterwards: pages that are not present are zero. */
  readonly bytes: Buffer;
  /** One for each page. */
  readonly present: readonly boolean[];
  /** Offsets in the file. */
  readonly bitmapOffset: number;
  readonly pagesOffset: number;
}

export interface MappedFile extends MainStream {
  readonly blocks: readonly MappedBlock[];
  /** All that stands behind RAM's START section. */
  readonly tail: Buffer;
}

/**
 * Reads a file in QEMU's mapped-ram format, without using anything of the product.
 * @param base where QEMU's stream begins
 * @param end behind its last byte; if left out, what a trailer of ours says, or the end of the file
 */
export async function readMappedFile(path: string, base = 0, end?: number): Promise<MappedFile> {
  const file = await readFile(path);
  return mappedFileIn(file, base, end ?? sealedEnd(file) ?? file.length);
}

export function mappedFileIn(file: Buffer, base: number, end: number): MappedFile {
  demand(
    base >= 0 && base < end && end <= file.length,
    `no stream from ${base} to ${end} in ${file.length} bytes`,
  );
  const cursor = new Cursor(file.subarray(0, end), base);
  let blocks: MappedBlock[] = [];
  const main = readMain(cursor, {
    start: (_, { capabilities }) => {
      demand(capabilities.join() === "mapped-ram", `the capabilities are "${capabilities.join()}"`);
      blocks = readBlockList(cursor, (block) => readBlock(block, cursor));
      readEos(cursor);
    },
    more: readEos,
  });
  return { ...main, blocks, tail: cursor.bytes.subarray(main.startEnd) };
}

/** RAM's sections have no record but the one that ends them. */
function readEos(cursor: Cursor): void {
  const at = cursor.at;
  const word = cursor.u64();
  demand(word === FLAG.EOS, `RAM has the word 0x${word.toString(16)} at ${at}`);
}

/** MappedRamHeader, bitmap, a gap, and the pages. */
function readBlock({ name, bytes: length }: ListedBlock, cursor: Cursor): MappedBlock {
  const version = cursor.u32();
  const pageSize = cursor.u64();
  demand(
    version === 1 && pageSize === PAGE,
    `"${name}" has map version ${version}, pages of ${pageSize} bytes`,
  );
  const [bitmapOffset, pagesOffset] = [cursor.u64(), cursor.u64()];
  demand(bitmapOffset === cursor.at, `"${name}" has its bitmap at ${bitmapOffset}, not at ${cursor.at}`);
  const pages = length / PAGE;
  const present = readBits(cursor.take(Math.ceil(pages / 64) * 8), pages, name);
  const wanted = Math.ceil(cursor.at / ALIGNMENT) * ALIGNMENT;
  demand(pagesOffset === wanted, `"${name}" has its pages at ${pagesOffset}, not at ${wanted}`);
  demand(isZero(cursor.take(pagesOffset - cursor.at)), `"${name}" has something between bitmap and pages`);
  const bytes = Buffer.from(cursor.take(length));
  for (const [page, here] of present.entries()) if (!here) bytes.fill(0, page * PAGE, (page + 1) * PAGE);
  return { name, bytes, present, bitmapOffset, pagesOffset };
}

function readBits(bitmap: Buffer, pages: number, name: string): boolean[] {
  const bits = Array.from(bitmap).flatMap((byte) =>
    Array.from({ length: 8 }, (_, bit) => ((byte >> bit) & 1) === 1),
  );
  demand(!bits.slice(pages).includes(true), `"${name}" has bits behind its last page ${pages - 1}`);
  return bits.slice(0, pages);
}

/** What a trailer of docs/formats/mapped-ram.md says; null when there is none. */
function sealedEnd(file: Buffer): number | null {
  const footer = Math.floor(file.length / 4096) * 4096 - 4096;
  if (footer < 0 || file.toString("latin1", footer, footer + 8) !== "MFDMSEAL") return null;
  return new Cursor(file, footer + 56).u64();
}
