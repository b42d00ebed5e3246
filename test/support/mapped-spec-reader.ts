import { Buffer } from "node:buffer";
import { crcBySpec, fieldsOf, readFields, sizeOf } from "./spec-reader.ts";

/*
 * A second reader of docs/formats/mapped-ram.md that shares no code with the product: it takes the offsets of the
 * fields from the tables of the page. It trusts the image, as only a test may.
 */

export interface SpecBlock {
  readonly record: ReadonlyMap<string, number>;
  /** Present pages: number and bytes. */
  readonly pages: ReadonlyMap<number, Buffer>;
  /** As stored, and as the page says how to take them. */
  readonly stored: readonly number[];
  readonly computed: readonly number[];
}

export interface SpecMapped {
  readonly footer: ReadonlyMap<string, number>;
  readonly footerUuid: string;
  readonly header: ReadonlyMap<string, number>;
  readonly metadata: unknown;
  readonly blocks: readonly SpecBlock[];
  /** CRC-32 by the page, of the bytes that the fields of the footer stand for. */
  readonly computed: Readonly<Record<"stream" | "map" | "metadata" | "sums" | "footer", number>>;
}

export function readMappedBySpec(page: string, image: Buffer): SpecMapped {
  const footerAt = Math.floor(image.length / 4096) * 4096 - 4096;
  const footer = fields(page, "## Footer", image, footerAt);
  const region = (what: string): Buffer => {
    const from = get(footer, `${what}_offset`);
    return image.subarray(from, from + get(footer, `${what}_length`));
  };
  const map = region("map");
  const header = fields(page, "### Map header", map, 0);
  const first = sizeOf(fieldsOf(page, "### Map header"));
  const size = sizeOf(fieldsOf(page, "### Map record"));
  const blocks: SpecBlock[] = [];
  const own: Buffer[] = [];
  let from = get(footer, "base");
  let range = 0;
  for (let n = 0; n < get(header, "blocks"); n++) {
    const block = readBlock(
      fields(page, "### Map record", map, first + n * size),
      image,
      region("sums"),
      range,
    );
    range += block.stored.length;
    const { record } = block;
    const words = Math.ceil(get(record, "used_length") / get(record, "page_size") / 64);
    own.push(image.subarray(from, get(record, "bitmap_offset") + words * 8));
    from = get(record, "pages_offset") + get(record, "used_length");
    blocks.push(block);
  }
  own.push(image.subarray(from, get(footer, "stream_end")));
  return {
    footerUuid: hexOf(page, "## Footer", image, footerAt)("image_uuid"),
    ...{ footer, header, blocks, metadata: JSON.parse(region("metadata").toString("utf8")) },
    computed: {
      stream: crcBySpec(Buffer.concat(own)),
      map: crcBySpec(map),
      metadata: crcBySpec(region("metadata")),
      sums: crcBySpec(region("sums")),
      footer: crcBySpec(image.subarray(footerAt, footerAt + 4092)),
    },
  };
}

/** What the mark of a sealed image says; null: there is none. */
export function readMarkBySpec(page: string, image: Buffer): Readonly<Record<string, unknown>> | null {
  const at = Math.floor(image.length / 4096) * 4096 - 8192;
  const bytes = image.subarray(at, at + 4096);
  if (bytes.every((byte) => byte === 0)) return null;
  const mark = fields(page, "## Resumed mark", bytes, 0);
  const hex = hexOf(page, "## Resumed mark", bytes, 0);
  return {
    ...{ state: get(mark, "state"), resumed: get(mark, "resumed"), completed: get(mark, "completed") },
    ...{ image: hex("image_uuid"), streamEnd: get(mark, "stream_end"), session: hex("session") },
    ...{ pid: get(mark, "qemu_pid"), start: get(mark, "qemu_start"), bootId: hex("boot_id") },
    sumFits: get(mark, "mark_crc32") === crcBySpec(bytes.subarray(0, 4092)),
  };
}

function hexOf(page: string, heading: string, bytes: Buffer, at: number): (name: string) => string {
  const places = fieldsOf(page, heading);
  return (name) => {
    const { offset, size } = places.get(name) ?? { offset: 0, size: 0 };
    return bytes.subarray(at + offset, at + offset + size).toString("hex");
  };
}

function readBlock(
  record: ReadonlyMap<string, number>,
  image: Buffer,
  sums: Buffer,
  firstRange: number,
): SpecBlock {
  const size = get(record, "page_size");
  const pages = new Map<number, Buffer>();
  const stored: number[] = [];
  const computed: number[] = [];
  for (let start = 0; start < get(record, "used_length"); start += 65536) {
    const present: Buffer[] = [];
    for (let at = start; at < Math.min(start + 65536, get(record, "used_length")); at += size) {
      const page = at / size;
      const byte = image.readUInt8(get(record, "bitmap_offset") + Math.floor(page / 8));
      if (((byte >> (page % 8)) & 1) === 0) continue;
      const place = get(record, "pages_offset") + at;
      present.push(image.subarray(place, place + size));
      pages.set(page, image.subarray(place, place + size));
    }
    stored.push(sums.readUInt32BE(4 * (firstRange + stored.length)));
    computed.push(crcBySpec(Buffer.concat(present)));
  }
  return { record, pages, stored, computed };
}

function fields(page: string, heading: string, bytes: Buffer, at: number): ReadonlyMap<string, number> {
  const values = readFields(fieldsOf(page, heading), bytes, at);
  return new Map([...values].map(([name, value]) => [name, Number(value)]));
}

function get(values: ReadonlyMap<string, number>, name: string): number {
  const value = values.get(name);
  if (value === undefined) throw new Error(`the page has no field ${name}`);
  return value;
}
