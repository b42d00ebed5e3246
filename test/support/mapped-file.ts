import { Buffer } from "node:buffer";
import * as wire from "./stream-builder.ts";

const PAGE = 4096;
const RAM_ID = 1;

/** A RAMBlock and the pages of it that are present: page number and what fills it. */
export interface MappedBlockSpec {
  readonly name: string;
  readonly bytes: number;
  readonly pages: Readonly<Record<number, number | Buffer>>;
}

export interface MappedFileOptions {
  readonly blocks: readonly MappedBlockSpec[];
  /** Where the stream begins. */
  readonly base?: number;
  readonly machine?: string;
  readonly capabilities?: readonly string[];
  readonly devices?: readonly string[];
  /** Pages begin at multiples of it; QEMU's is 1 MiB. */
  readonly alignment?: number;
  /** Changes a block's 28 header bytes, to do harm. */
  readonly header?: (header: Buffer) => void;
  /** What stands behind RAM's START section; END, devices, EOF byte and vmdescription if absent. */
  readonly rest?: Buffer;
}

/** A file as QEMU 10 writes it with mapped-ram, from its byte 0 on. */
export function mappedFile(options: MappedFileOptions): Buffer {
  const { blocks, base = 0, capabilities = ["mapped-ram"], devices = ["timer"] } = options;
  const writer = new FileWriter(base);
  writer.put(wire.configuration({ machine: options.machine ?? "pc-q35-10.0", capabilities }));
  writer.put(Buffer.concat([wire.u8(0x01), wire.be32(RAM_ID), wire.u8(3), Buffer.from("ram")]));
  writer.put(Buffer.concat([wire.be32(0), wire.be32(4)]));
  writer.put(wire.be64(blocks.reduce((sum, { bytes }) => sum + bytes, 0) + 0x004));
  for (const block of blocks) putBlock(writer, block, options);
  writer.put(Buffer.concat([wire.eosWord, wire.u8(0x7e), wire.be32(RAM_ID)]));
  writer.put(options.rest ?? restOf(devices));
  return writer.bytes();
}

/** RAM's END section, devices, EOF byte and vmdescription. */
export function restOf(devices: readonly string[]): Buffer {
  return Buffer.concat([
    wire.endSection(RAM_ID, wire.eosWord),
    ...devices.map((name, n) => wire.fullSection(RAM_ID + 1 + n, name, Buffer.alloc(24, 0x11))),
    wire.eofByte,
    wire.vmdescription(wire.vmdescriptionJson(devices)),
  ]);
}

function putBlock(
  writer: FileWriter,
  { name, bytes, pages }: MappedBlockSpec,
  { header: harm, alignment = 2 ** 20 }: MappedFileOptions,
): void {
  writer.put(Buffer.concat([wire.u8(name.length), Buffer.from(name), wire.be64(bytes)]));
  const bitmap = Buffer.alloc(Math.ceil(bytes / PAGE / 64) * 8);
  const bitmapAt = writer.at + 28;
  const pagesAt = Math.ceil((bitmapAt + bitmap.length) / alignment) * alignment;
  const header = Buffer.concat([wire.be32(1), wire.be64(PAGE), wire.be64(bitmapAt), wire.be64(pagesAt)]);
  harm?.(header);
  writer.put(header);
  for (const page of Object.keys(pages).map(Number))
    bitmap[page >> 3] = (bitmap[page >> 3] ?? 0) | (1 << (page & 7));
  writer.put(bitmap);
  for (const [page, fill] of Object.entries(pages)) {
    writer.at = pagesAt + Number(page) * PAGE;
    writer.put(Buffer.alloc(PAGE, fill));
  }
  writer.at = pagesAt + bytes;
}

class FileWriter {
  readonly #pieces: { at: number; bytes: Buffer }[] = [];
  at: number;

  constructor(base: number) {
    this.at = base;
  }

  put(bytes: Buffer): void {
    this.#pieces.push({ at: this.at, bytes });
    this.at += bytes.length;
  }

  bytes(): Buffer {
    const whole = Buffer.alloc(this.at);
    for (const { at, bytes } of this.#pieces) bytes.copy(whole, at);
    return whole;
  }
}
