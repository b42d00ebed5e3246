import { Buffer } from "node:buffer";
import koffi from "koffi";

/*
 * zstd by the library that QEMU itself uses: Node has it from version 22.15 on only. A channel is one zstd frame, flushed
 * at the end of each packet and never ended.
 */

const FLUSH = 1;
const STREAM = "void *context, _Inout_ ZSTD_buffer *output, _Inout_ ZSTD_buffer *input";

/** ZSTD_inBuffer and ZSTD_outBuffer, which are alike. */
interface Position {
  memory: Buffer;
  size: number;
  pos: number;
}

const library = bind();

/** Whether this machine has libzstd. */
export const hasZstd: boolean = library !== null;

function bind() {
  const zstd = load();
  if (zstd === null) return null;
  koffi.struct("ZSTD_buffer", { memory: "void *", size: "size_t", pos: "size_t" });
  return {
    isError: zstd.func("unsigned int ZSTD_isError(size_t code)"),
    createReader: zstd.func("void *ZSTD_createDCtx()"),
    freeReader: zstd.func("size_t ZSTD_freeDCtx(void *context)"),
    read: zstd.func(`size_t ZSTD_decompressStream(${STREAM})`),
    createWriter: zstd.func("void *ZSTD_createCCtx()"),
    freeWriter: zstd.func("size_t ZSTD_freeCCtx(void *context)"),
    write: zstd.func(`size_t ZSTD_compressStream2(${STREAM}, int directive)`),
  };
}

function load(): ReturnType<typeof koffi.load> | null {
  try {
    return koffi.load("libzstd.so.1");
  } catch {
    return null;
  }
}

function bound(): NonNullable<typeof library> {
  if (library === null) throw new Error("there is no libzstd.so.1 on this machine");
  return library;
}

/** Unpacks all of a channel's payloads, joined, to exactly `length` bytes. */
export function unzstd(bytes: Buffer, length: number): Buffer {
  const { createReader, freeReader, read } = bound();
  const context = createReader();
  // One byte more, so that too many are noticed.
  const output: Position = { memory: Buffer.alloc(length + 1), size: length + 1, pos: 0 };
  const input: Position = { memory: bytes, size: bytes.length, pos: 0 };
  const memory = output.memory;
  try {
    while (input.pos < input.size && output.pos < output.size) call(read(context, output, input));
  } finally {
    freeReader(context);
  }
  if (output.pos !== length)
    throw new Error(`a zstd channel unpacks to ${output.pos} bytes, not to ${length}`);
  return memory.subarray(0, length);
}

/** Makes the frame of a channel, a payload at a time. */
export class ZstdWriter {
  readonly #context: unknown = bound().createWriter();

  write(raw: Buffer): Buffer {
    const memory = Buffer.alloc(raw.length + 4096);
    const output: Position = { memory, size: memory.length, pos: 0 };
    const input: Position = { memory: raw, size: raw.length, pos: 0 };
    while (call(bound().write(this.#context, output, input, FLUSH)) > 0 || input.pos < input.size) {
      if (output.pos === output.size) throw new Error("zstd made more of it than it was");
    }
    return memory.subarray(0, output.pos);
  }

  end(): void {
    bound().freeWriter(this.#context);
  }
}

function call(result: number | bigint): number {
  if (bound().isError(result) !== 0) throw new Error(`libzstd answers ${result}`);
  return Number(result);
}
