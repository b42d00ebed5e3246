import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { PageSections } from "../../../src/formats/postcopy/page-section.ts";

/*
 * Expected bytes are written by hand after QEMU 7.2.22 and 10.0.2: migration/savevm.c for a section's head
 * (QEMU_VM_SECTION_PART 02, QEMU_VM_SECTION_END 03, be32 id) and footer (7e, be32 id), migration/ram.c for its records
 * (be64 address with RAM_SAVE_FLAG_ZERO 02, PAGE 08, EOS 10, CONTINUE 20).
 */

const PAGE = 4096;
const HEAD = "02 00000007";
const END = "0000000000000010 7e 00000007";
const sections = new PageSections(7);

function bytes(...parts: (string | Buffer)[]): Buffer {
  return Buffer.concat(
    parts.map((part) => (typeof part === "string" ? Buffer.from(part.replaceAll(" ", ""), "hex") : part)),
  );
}

function page(fill: number): Buffer {
  return Buffer.alloc(PAGE, fill);
}

test("one page: the block's name stands in its record", () => {
  const found = sections.whole("mem", [0x5000], () => page(0xab));
  expect(found).toEqual(bytes(HEAD, "0000000000005008 03 6d656d", page(0xab), END));
});

test("pages that follow continue their block, and have their own data", () => {
  const found = sections.whole("mem", [0x1000, 0x2000, 0x9000], (address) => page(address >> 12));
  expect(found).toEqual(
    bytes(
      ...[HEAD, "0000000000001008 03 6d656d", page(1)],
      ...["0000000000002028", page(2), "0000000000009028", page(9), END],
    ),
  );
});

test("pages of zeros are a word and a byte, first or not", () => {
  const found = sections.whole("mem", [0, 0x1000, 0x2000], (address) =>
    address === 0x1000 ? page(3) : null,
  );
  expect(found).toEqual(
    bytes(HEAD, "0000000000000002 03 6d656d 00", "0000000000001028", page(3), "0000000000002022 00", END),
  );
});

test("addresses beyond 4 GiB are whole", () => {
  const found = sections.whole("mem", [2 ** 40 - PAGE, 2 ** 40], () => null);
  expect(found).toEqual(bytes(HEAD, "000000fffffff002 03 6d656d 00", "0000010000000022 00", END));
});

test("no section depends on the one before", () => {
  const first = sections.whole("mem", [0], () => page(1));
  expect(sections.whole("mem", [0], () => page(1))).toEqual(first);
});

test("a head alone is what stands before the data of its first page", () => {
  expect(sections.head("mem", 2 ** 32 + PAGE)).toEqual(bytes(HEAD, "0000000100001008 03 6d656d"));
});

test("what ends a section", () => {
  expect(sections.end).toEqual(bytes(END));
});

test("the end of RAM is an empty END section, and behind it the byte that ends the stream", () => {
  expect(sections.endOfRam()).toEqual(bytes("03 00000007", END, "00"));
});
