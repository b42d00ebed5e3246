import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { closeSync, openSync, writeSync } from "node:fs";
import { crc32 } from "node:zlib";
import { inspect } from "../../src/control/inspect.ts";
import { openFile, readSealed } from "../../src/control/opened-image.ts";
import { SILENT } from "../../src/control/silent-log.ts";
import { checkStructure } from "../../src/control/structure.ts";
import { MultifdError } from "../../src/errors.ts";
import { blocks } from "../../src/formats/image/blocks.ts";
import { MAX_BLOCK_BYTES } from "../../src/formats/image/model.ts";
import { type OpenedImage, openImage } from "../../src/formats/image/open.ts";
import { decodeSuperblock } from "../../src/formats/image/superblock.ts";
import { ChannelWalker } from "../../src/formats/migration/channel-walker.ts";
import { alignedBuffer } from "../../src/io/slab-arena.ts";
import type { Source } from "../../src/io/source.ts";
import { readBlock, StoredChecksums } from "../../src/pool/block-reader.ts";
import type { Random } from "../support/random.ts";
import { mutate } from "./mutate.ts";

const REFUSALS = /^(PROTOCOL|TLS_PEER|IMAGE_DAMAGED|NOT_AN_IMAGE|NOT_SEALED|UNSUPPORTED_VERSION)$/;
const REGIONS = { metadata: 56, index: 80 } as const;
const CHECKSUM_AT = 4092;

/** A small image in a file, changed and looked at again and again. */
export class ImageTarget {
  readonly #path: string;
  readonly #original: Buffer;
  readonly #opened: OpenedImage;
  readonly #slot = alignedBuffer(MAX_BLOCK_BYTES);
  readonly #used = new Set<number>();

  constructor(path: string, original: Buffer) {
    this.#path = path;
    this.#original = original;
    const superblock = decodeSuperblock(original);
    const part = ({ offset, length }: { offset: number; length: number }) =>
      original.subarray(offset, offset + length);
    const { metadata, index } = superblock;
    assert.ok(metadata !== null && index !== null);
    this.#opened = openImage(superblock, { metadata: part(metadata), index: part(index) }, original.length);
  }

  /** Only then every flipped bit can be found. */
  get checksummed(): boolean {
    return this.#opened.index.channels.every(({ checksumsAt }) => checksumsAt !== null);
  }

  /** Which bytes of the file matter. */
  async prepare(): Promise<void> {
    this.#write(this.#original);
    assert.equal(await this.#check(), true, "the image is none before it is changed");
    for (const { offset, length } of (await inspect({ image: this.#path })).ranges) {
      for (let at = offset; at < offset + length; at++) this.#used.add(at);
    }
  }

  /** Flips one bit. It must be found where restore uses the byte, and harm nothing elsewhere. */
  async flip(random: Random): Promise<void> {
    const at = random.integer(this.#original.length);
    const bytes = Buffer.from(this.#original);
    bytes[at] = (bytes[at] as number) ^ (1 << random.integer(8));
    this.#write(bytes);
    assert.equal(await this.#check(), !this.#used.has(at), `a flipped bit of byte ${at}`);
  }

  /** Changes a part and makes every checksum fit again. @returns whether the image was taken */
  async forge(random: Random): Promise<boolean> {
    const bytes = Buffer.from(this.#original);
    const what = random.pick(["superblock", "metadata", "index", "data"] as const);
    const { metadata, index } = this.#opened.superblock;
    if (what === "superblock") overwrite(random, bytes, 0, 104);
    else if (what === "data") this.#forgeBlock(random, bytes);
    else {
      const region = what === "metadata" ? metadata : index;
      overwrite(random, bytes, region?.offset ?? 0, region?.length ?? 0);
    }
    for (const field of Object.values(REGIONS)) fixRegion(bytes, field);
    bytes.writeUInt32BE(crc32(bytes.subarray(0, CHECKSUM_AT)), CHECKSUM_AT);
    this.#write(bytes);
    return this.#check();
  }

  #forgeBlock(random: Random, bytes: Buffer): void {
    const all = this.#opened.index.channels.flatMap((record) => [...blocks(record)]);
    const { offset, length, checksumAt } = random.pick(all);
    overwrite(random, bytes, offset, length);
    if (checksumAt !== null) bytes.writeUInt32BE(crc32(bytes.subarray(offset, offset + length)), checksumAt);
  }

  /** What verify does, without its threads, and then inspect; whether both took the image. */
  async #check(): Promise<boolean> {
    const verified = await taken(async () => {
      const { source, head } = await openFile(this.#path, 0, "off", SILENT);
      try {
        await this.#walk(source, await readSealed(source, decodeSuperblock(head)));
      } finally {
        source.close();
      }
    });
    const inspected = await taken(async () => {
      const { ranges } = await inspect({ image: this.#path });
      for (const { offset, length } of ranges) assert.ok(offset + length <= this.#original.length);
    });
    assert.ok(inspected || !verified, "verify takes what inspect refuses");
    return verified;
  }

  async #walk(source: Source, image: OpenedImage): Promise<void> {
    const checksums = new StoredChecksums(source);
    const summaries = [];
    for (const record of image.index.channels) {
      const walker = new ChannelWalker();
      for (const block of blocks(record)) {
        await readBlock(source, block, this.#slot, checksums);
        walker.push(this.#slot.subarray(0, block.length));
      }
      summaries.push(walker.finish());
    }
    checkStructure(image, summaries);
  }

  #write(bytes: Buffer): void {
    const fd = openSync(this.#path, "w", 0o600);
    writeSync(fd, bytes);
    closeSync(fd);
  }
}

async function taken(read: () => Promise<void>): Promise<boolean> {
  try {
    await read();
    return true;
  } catch (error) {
    if (error instanceof MultifdError && REFUSALS.test(error.code)) return false;
    throw error;
  }
}

function overwrite(random: Random, image: Buffer, offset: number, length: number): void {
  const part = image.subarray(offset, offset + length);
  mutate(random, Buffer.from(part), [part]).copy(part);
}

function fixRegion(image: Buffer, field: number): void {
  const offset = image.readBigUInt64BE(field);
  const length = image.readBigUInt64BE(field + 8);
  if (offset + length > BigInt(image.length)) return;
  image.writeUInt32BE(crc32(image.subarray(Number(offset), Number(offset + length))), field + 16);
}
