import { Buffer } from "node:buffer";

/*
 * A second reader of docs/formats/image.md that shares no code with the product: it takes even the offsets of the
 * fields from the tables of the page. It trusts the image, as only a test may.
 */

/** Where the fields of one table of the page lie. */
type Fields = ReadonlyMap<string, { readonly offset: number; readonly size: number }>;

export interface SpecChannel {
  readonly kind: bigint;
  readonly id: bigint;
  readonly tail: bigint;
  readonly blockBytes: number;
  readonly marks: readonly number[];
  readonly checksums: readonly number[];
  /** The connection's bytes, joined from the extents. */
  readonly bytes: Buffer;
}

export interface SpecImage {
  readonly superblock: ReadonlyMap<string, bigint>;
  readonly metadata: unknown;
  readonly channels: readonly SpecChannel[];
}

export function readBySpec(page: string, image: Buffer): SpecImage {
  const superblock = readFields(fieldsOf(page, "## Superblock"), image, 0);
  const part = (what: string): Buffer => {
    const offset = number(superblock, `${what}_offset`);
    return image.subarray(offset, offset + number(superblock, `${what}_length`));
  };
  return {
    superblock,
    metadata: JSON.parse(part("metadata").toString("utf8")),
    channels: readIndex(page, part("index"), image),
  };
}

function readIndex(page: string, index: Buffer, image: Buffer): SpecChannel[] {
  const headerFields = fieldsOf(page, "### Index header");
  const recordFields = fieldsOf(page, "### Channel record");
  const channels: SpecChannel[] = [];
  let at = sizeOf(headerFields);
  const records = number(readFields(headerFields, index, 0), "records");
  for (let record = 0; record < records; record++) {
    const fixed = readFields(recordFields, index, at);
    at += sizeOf(recordFields);
    const next = (size: 4 | 8): number => {
      at += size;
      return size === 4 ? index.readUInt32BE(at - 4) : Number(index.readBigUInt64BE(at - 8));
    };
    const times = <T>(count: number, read: () => T): T[] => Array.from({ length: count }, read);
    const extents = times(number(fixed, "extent_count"), () => [next(8), next(8)] as const);
    const marks = times(number(fixed, "mark_count"), () => next(8));
    const blocks = number(fixed, "checksum_kind") === 1 ? number(fixed, "block_count") : 0;
    const checksums = times(blocks, () => next(4));
    at = Math.ceil(at / 8) * 8;
    channels.push({
      kind: fixed.get("kind") ?? 0n,
      id: fixed.get("id") ?? 0n,
      tail: fixed.get("tail") ?? 0n,
      blockBytes: number(fixed, "block_bytes"),
      marks,
      checksums,
      bytes: joined(extents, image, number(fixed, "length")),
    });
  }
  if (at !== index.length) throw new Error(`the records end at ${at}, the index at ${index.length}`);
  return channels;
}

function joined(extents: readonly (readonly [number, number])[], image: Buffer, length: number): Buffer {
  const bytes = Buffer.concat(extents.map(([from, size]) => image.subarray(from, from + size)));
  if (bytes.length !== length) throw new Error(`the extents hold ${bytes.length} bytes of ${length}`);
  return bytes;
}

/** The table `| offset | size | field | meaning |` below a heading. Throws if its rows leave a gap or overlap. */
export function fieldsOf(page: string, heading: string): Fields {
  const section = page.split(`\n${heading}\n`)[1] ?? "";
  const rows = [...(section.split(/\n#/)[0]?.matchAll(/^\| +(\d+) \| +(\d+) \| `(\w+)` +\|/gm) ?? [])];
  if (rows.length === 0) throw new Error(`no table below "${heading}"`);
  const fields = new Map<string, { offset: number; size: number }>();
  let end = 0;
  for (const [, offset, size, name] of rows) {
    if (Number(offset) !== end) throw new Error(`"${heading}": ${name} is at ${offset}, not at ${end}`);
    end += Number(size);
    const unique = fields.has(name as string) ? `${name}@${offset}` : (name as string);
    fields.set(unique, { offset: Number(offset), size: Number(size) });
  }
  return fields;
}

export function sizeOf(fields: Fields): number {
  return Math.max(...Array.from(fields.values(), ({ offset, size }) => offset + size));
}

export function readFields(fields: Fields, bytes: Buffer, at: number): Map<string, bigint> {
  const values = new Map<string, bigint>();
  for (const [name, { offset, size }] of fields) {
    const digits = bytes.subarray(at + offset, at + offset + size).toString("hex");
    values.set(name, BigInt(`0x${digits}`));
  }
  return values;
}

function number(fields: ReadonlyMap<string, bigint>, name: string): number {
  const value = fields.get(name);
  if (value === undefined) throw new Error(`the page has no field ${name}`);
  return Number(value);
}

/** CRC-32 as the page's conventions describe it, a bit at a time. */
export function crcBySpec(bytes: Uint8Array): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb8_8320 : 0);
  }
  return (crc ^ 0xffff_ffff) >>> 0;
}
