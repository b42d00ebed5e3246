import { Buffer } from "node:buffer";
import type { Random } from "./random.ts";
import type { MigrationShape } from "./random-migration-shape.ts";
import { PAGE_BYTES } from "./stream-builder.ts";

/** A page that is sent. */
export interface Send {
  readonly block: string;
  /** Bytes into the block. */
  readonly offset: number;
  /** null: as a zero page. */
  readonly data: Buffer | null;
}

export interface ModelBlock {
  readonly name: string;
  readonly bytes: Buffer;
  /** How each page was sent last; null: it never was, and is zero. */
  readonly sent: ("data" | "zero" | null)[];
}

export interface Life {
  /** What is sent between two barriers, in the order of QEMU's scan. A page occurs in an epoch once. */
  readonly epochs: readonly (readonly Send[])[];
  /** The guest's RAM when all of it was sent. */
  readonly blocks: readonly ModelBlock[];
}

/** What a guest had in its RAM and when it was sent: passes over RAM, each cut into one epoch or more. */
export function randomLife(shape: MigrationShape, random: Random): Life {
  const epochs: Send[][] = [];
  for (let pass = 0; pass < shape.passes; pass++) {
    const sends = shape.blocks.flatMap((block) => passOver(block, pass, shape, random));
    // Without any data main alone would look as if its channels were lost; no real guest has none.
    if (shape.channels === 0 && pass === 0) forceData(sends, shape);
    epochs.push(...cutRandomly(sends, 1 + random.integer(3), random));
  }
  return { epochs, blocks: shape.blocks.map(({ name, pages }) => outcome(name, pages, epochs.flat())) };
}

function passOver(
  { name, pages }: MigrationShape["blocks"][number],
  pass: number,
  shape: MigrationShape,
  random: Random,
): Send[] {
  const zeroShare = random.pick([0, 0.2, 0.5, 1]);
  const sentShare = pass > 0 ? random.pick([0, 0.1, 0.4, 1]) : shape.unsent ? random.pick([0, 0.5, 0.9]) : 1;
  const runs = random.pick([0.2, 0.9, 0.98]);
  const sends: Send[] = [];
  let zero = false;
  let sent = false;
  for (let page = 0; page < pages; page++) {
    if (page === 0 || random.fraction() > runs) {
      zero = random.fraction() < zeroShare;
      sent = random.fraction() < sentShare;
    }
    if (!sent) continue;
    const data = zero ? zeroAs(shape) : contentOf(`${name.slice(-20)} ${page} ${pass} `, random);
    sends.push({ block: name, offset: page * PAGE_BYTES, data });
  }
  return shape.scattered ? shuffled(sends, random) : sends;
}

function zeroAs({ zeroPages }: MigrationShape): Buffer | null {
  return zeroPages === "none" ? Buffer.alloc(PAGE_BYTES) : null;
}

/** Mostly the page's name all over; sometimes almost nothing; sometimes nothing, where QEMU's look and its write differed. */
function contentOf(tag: string, random: Random): Buffer {
  const kind = random.integer(20);
  if (kind === 0) return Buffer.alloc(PAGE_BYTES);
  if (kind < 4) {
    const page = Buffer.alloc(PAGE_BYTES);
    page[random.pick([0, PAGE_BYTES - 1, random.integer(PAGE_BYTES)])] = 1 + random.integer(255);
    return page;
  }
  return Buffer.alloc(PAGE_BYTES, kind < 10 ? `${random.integer(2 ** 32).toString(36)}${tag}` : tag);
}

function forceData(sends: Send[], { blocks }: MigrationShape): void {
  if (sends.some(({ data }) => data !== null)) return;
  const first = sends[0] ?? { block: blocks[0]?.name ?? "", offset: 0 };
  sends[0] = { ...first, data: Buffer.alloc(PAGE_BYTES, "the only one ") };
}

/** In at most `parts` parts, empty ones among them. */
function cutRandomly<T>(list: readonly T[], parts: number, random: Random): T[][] {
  const cuts = Array.from({ length: parts - 1 }, () => random.integer(list.length + 1)).sort((a, b) => a - b);
  return [0, ...cuts].map((from, n) => list.slice(from, cuts[n] ?? list.length));
}

export function shuffled<T>(list: readonly T[], random: Random): T[] {
  return list
    .map((item) => ({ item, key: random.fraction() }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item);
}

function outcome(name: string, pages: number, sends: readonly Send[]): ModelBlock {
  const bytes = Buffer.alloc(pages * PAGE_BYTES);
  const sent: ModelBlock["sent"] = new Array<null>(pages).fill(null);
  for (const { block, offset, data } of sends) {
    if (block !== name) continue;
    if (data === null) bytes.fill(0, offset, offset + PAGE_BYTES);
    else data.copy(bytes, offset);
    sent[offset / PAGE_BYTES] = data === null ? "zero" : "data";
  }
  return { name, bytes, sent };
}
