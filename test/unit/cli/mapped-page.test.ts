import type { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { describeImage } from "../../../src/cli/inspect-page.ts";
import { inspect, verify } from "../../../src/index.ts";
import { exampleMapped } from "../../support/example-mapped.ts";
import { mappedFile } from "../../support/mapped-file.ts";
import { useScratch } from "../../support/scratch.ts";

const scratch = useScratch();
const example = exampleMapped();

async function page(bytes: Buffer, offset = 0): Promise<string> {
  const image = scratch.file("vm.mr");
  await writeFile(image, bytes);
  return describeImage(await inspect({ image, offset }));
}

test("a sealed image: what it is, what is in it, and how QEMU loads it", async () => {
  const shown = await page(example.bytes);
  for (const text of [
    "mapped-ram",
    "yes, the streams are complete; QEMU called",
    "crc32",
    "pc-q35-10.0",
    "80.0 KiB, 12.0 KiB of it not zero",
  ]) {
    expect(shown).toContain(text);
  }
  expect(shown).toContain(
    `{"execute":"migrate-incoming","arguments":{"uri":"file:${scratch.file("vm.mr")}"}}`,
  );
  expect(shown).toContain('{"capability":"mapped-ram","state":true}');
  expect(shown).toMatch(/name +text, 7 B/);
});

test("the example image of the page is intact", async () => {
  const image = scratch.file("vm.mr");
  await writeFile(image, example.bytes);
  expect(await verify({ image })).toMatchObject({ checked: "checksums and structure", blocks: 2 });
});

test("a file without our seal, behind a manager's header", async () => {
  const block = { name: "a\u001b[31m", bytes: 8192, pages: { 1: 7 } };
  const shown = await page(mappedFile({ blocks: [block], base: 4096 }), 4096);
  expect(shown).toContain("no seal of ours");
  expect(shown).toContain("byte 4096 of the file");
  expect(shown).toContain(",offset=4096");
  expect(shown).not.toContain("\u001b");
});
