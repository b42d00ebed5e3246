import { ByteInput, ResumableParser, type Steps, skipBytes } from "../migration/byte-input.ts";
import { blockCount } from "./blocks.ts";
import { damaged } from "./damage.ts";
import * as layout from "./index.ts";
import {
  type ChannelRecord,
  type ImageIndex,
  MAX_EXTENTS,
  MAX_MARKS,
  MAX_MULTIFD_CHANNELS,
  type Region,
} from "./model.ts";
import { LARGEST_HIGH, U64_BYTES } from "./u64.ts";

const { RECORD } = layout;

/**
 * Reads an index piece by piece, so that it need not be held: 16 TiB of data have up to half a GiB of checksums, and a
 * forged index costs its author nothing. Keeps extents and marks, and of the checksums only where they are. Its
 * own checksum is the business of RegionSum, the sense of its values that of checkLayout; no count is believed
 * before the bytes it stands for are there.
 */
export class IndexDecoder {
  readonly #input = new ByteInput();
  readonly #channels: ChannelRecord[] = [];
  readonly #parser: ResumableParser;

  /** @param region where the index lies and its length; all of its bytes must be pushed */
  constructor(region: Pick<Region, "offset" | "length">) {
    this.#parser = new ResumableParser(this.#input, readIndex(this.#input, region, this.#channels));
  }

  /** Throws IMAGE_DAMAGED, at once or at a later push, and again in finish(). */
  push(chunk: Uint8Array): void {
    this.#parser.push(chunk);
  }

  finish(): ImageIndex {
    this.#parser.rethrow();
    if (!this.#parser.done) throw wrong(this.#input.fed, "no more of it could be read");
    return { channels: this.#channels };
  }
}

/**
 * Reads an index that is in memory.
 * @param offset where it lies, from the base of the image
 * @throws MultifdError IMAGE_DAMAGED
 */
export function decodeIndex(bytes: Uint8Array, offset = 0): ImageIndex {
  const decoder = new IndexDecoder({ offset, length: bytes.length });
  decoder.push(bytes);
  return decoder.finish();
}

function* readIndex(
  input: ByteInput,
  region: Pick<Region, "offset" | "length">,
  channels: ChannelRecord[],
): Steps {
  const records = yield* readHeader(input, region.length);
  let extents = 0;
  let marks = 0;
  for (let number = 0; number < records; number++) {
    const at = input.offset;
    const head = yield* readHead(input, region.length);
    extents += head.extents;
    marks += head.marks;
    if (extents > MAX_EXTENTS) {
      throw wrong(at + RECORD.extents, `there are ${extents} extents, more than the ${MAX_EXTENTS} allowed`);
    }
    if (marks > MAX_MARKS) {
      throw wrong(at + RECORD.marks, `there are ${marks} marks, more than the ${MAX_MARKS} allowed`);
    }
    channels.push(yield* readRecord(input, region.offset, head));
    yield* skipBytes(input, at + layout.recordBytes(head) - input.offset);
  }
  const left = region.length - input.offset;
  if (left !== 0) throw wrong(input.offset, `${left} bytes follow the last record`);
}

function* readHeader(input: ByteInput, length: number): Steps<number> {
  const { HEADER, HEADER_BYTES, INDEX_MAGIC, INDEX_VERSION } = layout;
  if (length < HEADER_BYTES) throw wrong(length, "it ends within its header");
  while (!input.ready(HEADER_BYTES)) yield;
  const magic = input.text(0, HEADER.version);
  if (magic !== INDEX_MAGIC) throw wrong(0, `it does not start with "${INDEX_MAGIC}"`);
  const version = input.u32(HEADER.version);
  if (version !== INDEX_VERSION)
    throw wrong(HEADER.version, `index version ${version} is not ${INDEX_VERSION}`);
  const records = input.u32(HEADER.records);
  if (records > MAX_MULTIFD_CHANNELS + 1) {
    throw wrong(HEADER.records, `${records} channels are more than main and ${MAX_MULTIFD_CHANNELS}`);
  }
  input.consume(HEADER_BYTES);
  return records;
}

function* readHead(input: ByteInput, length: number): Steps<layout.RecordHead> {
  const at = input.offset;
  if (at + layout.RECORD_BYTES > length) throw wrong(length, "it ends within a channel's record");
  while (!input.ready(layout.RECORD_BYTES)) yield;
  const head: layout.RecordHead = {
    kind: readKind(input, RECORD.kind),
    id: input.u32(RECORD.id),
    length: readU64(input, RECORD.length),
    blockBytes: input.u32(RECORD.blockBytes),
    hasChecksums: readChecksumKind(input, RECORD.checksumKind),
    tail: readTail(input, RECORD.tail),
    extents: input.u32(RECORD.extents),
    marks: input.u32(RECORD.marks),
    blocks: input.u32(RECORD.blocks),
  };
  if (head.blocks !== blockCount(head)) {
    throw wrong(
      at + RECORD.blocks,
      `${head.blocks} blocks of ${head.blockBytes} bytes do not make ${head.length} bytes`,
    );
  }
  const needed = layout.recordBytes(head);
  if (needed > length - at) {
    throw wrong(at, `the record needs ${needed} bytes and ${length - at} are left`);
  }
  input.consume(layout.RECORD_BYTES);
  return head;
}

function* readRecord(input: ByteInput, base: number, head: layout.RecordHead): Steps<ChannelRecord> {
  const { kind, id, length, blockBytes, tail } = head;
  const extents = yield* readNumbers(input, 2 * head.extents);
  const marks = yield* readNumbers(input, head.marks);
  const checksumsAt = head.hasChecksums ? base + input.offset : null;
  return { kind, id, length, blockBytes, extents, marks, tail, checksumsAt };
}

function* readNumbers(input: ByteInput, count: number): Steps<Float64Array> {
  // Shared memory: a worker that gets the record sees these numbers instead of a copy.
  const numbers = new Float64Array(new SharedArrayBuffer(count * Float64Array.BYTES_PER_ELEMENT));
  for (let at = 0; at < count; at++) {
    while (!input.ready(U64_BYTES)) yield;
    numbers[at] = readU64(input, 0);
    input.consume(U64_BYTES);
  }
  return numbers;
}

function readKind(input: ByteInput, at: number): ChannelRecord["kind"] {
  const kind = input.u32(at);
  if (kind === layout.KIND_MAIN) return "main";
  if (kind === layout.KIND_MULTIFD) return "multifd";
  throw wrong(input.offset + at, `channel kind ${kind} is neither main (1) nor multifd (2)`);
}

function readChecksumKind(input: ByteInput, at: number): boolean {
  const kind = input.u32(at);
  if (kind === layout.CHECKSUM_NONE || kind === layout.CHECKSUM_CRC32) return kind === layout.CHECKSUM_CRC32;
  throw wrong(input.offset + at, `checksum kind ${kind} is neither none (0) nor CRC-32 (1)`);
}

function readTail(input: ByteInput, at: number): number | null {
  return input.hex(at, U64_BYTES) === layout.NO_TAIL.toString(16) ? null : readU64(input, at);
}

function readU64(input: ByteInput, at: number): number {
  if (input.u32(at) <= LARGEST_HIGH) return input.u64(at);
  const value = BigInt(`0x${input.hex(at, U64_BYTES)}`);
  throw wrong(input.offset + at, `the value ${value} is larger than any file`);
}

function wrong(offset: number, problem: string): ReturnType<typeof damaged> {
  return damaged(`index byte ${offset}`, problem, { what: "index", offset });
}
