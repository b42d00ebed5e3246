import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { unpackerFor } from "../../../src/pool/placing/unpacker.ts";

const PAGE = 4096;

/** RFC 8878: a block of one repeated byte. */
function run(byte: number): Buffer {
  const block = Buffer.alloc(4, byte);
  block.writeUIntLE((PAGE << 3) | (1 << 1), 0, 3);
  return block;
}

test("a zstd stream whose payloads have a few bytes only is unpacked at once", async () => {
  const unpacker = unpackerFor("zstd");
  const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, 9 << 3]);
  for (const [n, payload] of [Buffer.concat([head, run(1)]), run(2), run(3)].entries()) {
    const pieces = await unpacker?.unpack(payload, PAGE, 0);
    expect(Buffer.concat([...(pieces ?? [])]).equals(Buffer.alloc(PAGE, n + 1))).toBe(true);
  }
});
