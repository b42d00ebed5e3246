import { mkdtemp, open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";

const PAGE = 4096;
const PAGES = 2048;
let directory: string;
let a: string;
let b: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "ram-"));
  [a, b] = [join(directory, "a"), join(directory, "b")];
  for (const path of [a, b]) {
    await writeFile(path, "");
    await truncate(path, PAGES * PAGE);
  }
});
afterEach(() => rm(directory, { recursive: true }));

test("the same seed gives the same RAM, another seed another", async () => {
  await fillRam(a, PAGES * PAGE, 1);
  await fillRam(b, PAGES * PAGE, 1);
  expect(await compareFiles(a, b)).toEqual({ pages: PAGES, differing: 0, firstDifferingPage: null });
  await fillRam(b, PAGES * PAGE, 2);
  expect((await compareFiles(a, b)).differing).toBeGreaterThan(PAGES / 2);
});

test("holds zero pages, and no other page twice: a page in the wrong place shows", async () => {
  await fillRam(a, PAGES * PAGE, 3);
  const ram = await readFile(a);
  const pages = Array.from({ length: PAGES }, (_, n) => ram.toString("latin1", n * PAGE, (n + 1) * PAGE));
  const zero = "\0".repeat(PAGE);
  const others = pages.filter((page) => page !== zero);
  expect(pages.length - others.length).toBeGreaterThan(PAGES / 10);
  expect(others.filter((page) => page.startsWith("page ")).length).toBeGreaterThan(PAGES / 10);
  expect(new Set(others).size).toBe(others.length);
});

test("overwrites what was there, zero pages too, and nothing beyond", async () => {
  await writeFile(b, Buffer.alloc(PAGES * PAGE + 100, 0xee));
  await fillRam(a, PAGES * PAGE, 4);
  await fillRam(b, PAGES * PAGE, 4);
  expect((await readFile(b)).subarray(PAGES * PAGE)).toEqual(Buffer.alloc(100, 0xee));
  await truncate(b, PAGES * PAGE);
  expect((await compareFiles(a, b)).differing).toBe(0);
});

test("fills a size that is no multiple of its own chunks", async () => {
  await truncate(a, 3 * PAGE);
  await fillRam(a, 3 * PAGE, 5);
  expect((await readFile(a)).length).toBe(3 * PAGE);
});

test.each([0, 255, 256, PAGES - 1])("one flipped bit in page %i is found", async (page) => {
  await fillRam(a, PAGES * PAGE, 6);
  await fillRam(b, PAGES * PAGE, 6);
  const file = await open(b, "r+");
  const { buffer } = await file.read(Buffer.alloc(1), 0, 1, page * PAGE + 4095);
  buffer.writeUInt8(buffer.readUInt8(0) ^ 1);
  await file.write(buffer, 0, 1, page * PAGE + 4095);
  await file.close();
  expect(await compareFiles(a, b)).toEqual({ pages: PAGES, differing: 1, firstDifferingPage: page });
});

test("pages that one file lacks differ, even zero ones", async () => {
  await truncate(b, (PAGES - 300) * PAGE);
  expect(await compareFiles(a, b)).toEqual({
    pages: PAGES,
    differing: 300,
    firstDifferingPage: PAGES - 300,
  });
  expect(await compareFiles(b, a)).toMatchObject({ differing: 300 });
});
