import { Buffer } from "node:buffer";
import { crc32 } from "node:zlib";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CrcJoiner, combineCrc32 } from "../../src/formats/crc32-combine.ts";

const bytes = fc.uint8Array({ maxLength: 300 });

test("the CRC of joined pieces follows from theirs", () => {
  fc.assert(
    fc.property(bytes, bytes, (a, b) => {
      expect(combineCrc32(crc32(a), crc32(b), b.length)).toBe(crc32(Buffer.concat([a, b])));
    }),
  );
});

test("lengths beyond 32 bits are right, too", () => {
  // Appending a GiB of zeros eight times is appending eight GiB.
  const GIB = 2 ** 30;
  const zeros = combineCrc32(0, 0, GIB);
  expect(zeros).toBe(0);
  const mebi = crc32(Buffer.alloc(2 ** 20));
  let gibi = 0;
  for (let n = 0; n < 1024; n++) gibi = combineCrc32(gibi, mebi, 2 ** 20);
  let many = 0;
  for (let n = 0; n < 8; n++) many = combineCrc32(many, gibi, GIB);
  let doubled = gibi;
  for (let length = GIB; length < 8 * GIB; length *= 2) doubled = combineCrc32(doubled, doubled, length);
  expect(doubled).toBe(many);
});

test("pages that are present are joined to the CRC of their range", () => {
  const page = fc.record({ bytes: fc.uint8Array({ minLength: 64, maxLength: 64 }), present: fc.boolean() });
  fc.assert(
    fc.property(fc.array(page, { maxLength: 40 }), fc.nat(40), (pages, from) => {
      const crcs = Int32Array.from(pages, ({ bytes }) => crc32(bytes));
      const bits = new Uint8Array(5);
      for (const [n, { present }] of pages.entries())
        if (present) bits[n >> 3] = (bits[n >> 3] as number) | (1 << (n & 7));
      const first = Math.min(from, pages.length);
      const present = pages.slice(first).filter((one) => one.present);
      const joined = new CrcJoiner(64).join(crcs, bits, first, pages.length);
      expect(joined).toBe(crc32(Buffer.concat(present.map((one) => one.bytes))));
    }),
  );
});
