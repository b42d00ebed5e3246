import { randomFillSync } from "node:crypto";
import { shapePages } from "../../demo/ram-pattern.ts";
import { PAGES_PER_PACKET } from "../../formats/migration/multifd-packet.ts";
import type { PageRun } from "../../formats/migration/packet-writer.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import type { PageMix } from "../choices.ts";

/** How much of a guest's RAM a packet covers. */
export const PACKET_RAM_BYTES: number = PAGES_PER_PACKET * PAGE_SIZE;
/** 16 MiB of pages: more than the caches of a core hold, so that sending costs what it costs a QEMU. */
const TEMPLATES = 32;

/** What a packet says but for its place: sent over and over, each time of another stretch of RAM. */
export interface PacketTemplate {
  /** Which of the 128 pages have data, and which are zero; in bytes from the first. */
  readonly normal: readonly PageRun[];
  readonly zero: readonly PageRun[];
  /** The data, in memory that all threads share. */
  readonly payload: Uint8Array;
}

export function packetTemplates(mix: PageMix): PacketTemplate[] {
  return Array.from({ length: TEMPLATES }, (_, number) => template(packetPages(mix, number)));
}

function packetPages(mix: PageMix, number: number): Buffer {
  const pages = Buffer.alloc(PACKET_RAM_BYTES);
  if (mix === "zero") return pages;
  if (mix === "compressible") return pages.fill(`page of packet ${number} of the guest. `);
  randomFillSync(pages);
  if (mix === "mix") shapePages(pages, number * PAGES_PER_PACKET);
  return pages;
}

function template(pages: Buffer): PacketTemplate {
  const page = (number: number): Buffer => pages.subarray(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);
  const numbers = Array.from({ length: PAGES_PER_PACKET }, (_, number) => number);
  const normal = numbers.filter((number) => !page(number).equals(ZERO_PAGE));
  const payload = new Uint8Array(new SharedArrayBuffer(normal.length * PAGE_SIZE));
  for (const [at, number] of normal.entries()) payload.set(page(number), at * PAGE_SIZE);
  const zero = numbers.filter((number) => !normal.includes(number));
  return { normal: runsOf(normal), zero: runsOf(zero), payload };
}

function runsOf(numbers: readonly number[]): PageRun[] {
  const runs: { start: number; end: number }[] = [];
  for (const number of numbers) {
    const start = number * PAGE_SIZE;
    const last = runs.at(-1);
    if (last?.end === start) last.end += PAGE_SIZE;
    else runs.push({ start, end: start + PAGE_SIZE });
  }
  return runs;
}

const ZERO_PAGE = Buffer.alloc(PAGE_SIZE);
