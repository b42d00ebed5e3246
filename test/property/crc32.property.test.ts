import { createRequire } from "node:module";
import { crc32 as ofNode } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { crc32, fastest } from "../../src/io/crc32.ts";
import { alignedBuffer } from "../../src/io/slab-arena.ts";

const parts = fc.array(fc.uint8Array({ maxLength: 5000 }), { minLength: 1, maxLength: 6 });

test("is the CRC-32 of Node.js, of any bytes at any place and in any parts", () => {
  fc.assert(
    fc.property(parts, fc.nat(100), (pieces, start) => {
      const whole = Buffer.concat(pieces);
      const slot = alignedBuffer(8 * 4096 * 2).subarray(start, start + whole.byteLength);
      slot.set(whole);
      let sum = 0;
      for (let at = 0, next = 0; next < pieces.length; next++) {
        const end = at + (pieces[next] as Uint8Array).byteLength;
        sum = crc32(slot.subarray(at, end), sum);
        at = end;
      }
      expect(sum).toBe(ofNode(whole));
      expect(crc32(slot)).toBe(sum);
    }),
  );
});

test("has its binary here: else every figure of docs/benchmarks.md is of something else", () => {
  expect(fastest()).toBe(createRequire(import.meta.url)("@node-rs/crc32").crc32);
});
