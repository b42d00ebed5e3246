import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam, currentPass } from "../support/dirty-ram.ts";

const PAGE = 4096;
const range = { start: 2 ** 20, end: 2 ** 20 + 600 * PAGE };
let directory: string;
let path: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "dirty-"));
  path = join(directory, "ram");
});
afterEach(() => rm(directory, { recursive: true }));

/** RAM as the guest leaves it in pass `sequence` with the cursor at page `cursor`. */
function ramAt(sequence: number, cursor: number): Buffer {
  const ram = Buffer.alloc(range.end);
  for (let page = 0; page < 600; page++) write(ram, page, page < cursor ? sequence : sequence - 1);
  return ram;
}

function write(ram: Buffer, page: number, pass: number): void {
  ram.writeUInt32LE(pass, range.start + page * PAGE);
  ram.writeUInt32LE(~pass >>> 0, range.start + page * PAGE + 4);
}

describe("checkDirtyRam", () => {
  test.each([1, 255, 256, 599, 600])("accepts an instant with the cursor at page %i", async (cursor) => {
    await writeFile(path, ramAt(5, cursor));
    expect(await checkDirtyRam(path, range)).toEqual({
      sequence: 5,
      cursor,
      violations: 0,
      firstViolation: null,
    });
    expect(await currentPass(path, range)).toBe(5);
  });

  test.each([
    ["a page from the pass before last", 400, 3],
    ["a page written behind the cursor", 400, 5],
    ["a page from the future", 400, 6],
  ])("finds %s", async (_, page, pass) => {
    const ram = ramAt(5, 300);
    write(ram, page, pass);
    await writeFile(path, ram);
    expect(await checkDirtyRam(path, range)).toMatchObject({ violations: 1, firstViolation: page });
  });

  test("finds one stale page before the cursor, by all that follow it", async () => {
    const ram = ramAt(5, 300);
    write(ram, 100, 4);
    await writeFile(path, ram);
    expect(await checkDirtyRam(path, range)).toMatchObject({ violations: 199, firstViolation: 101 });
  });

  test("finds a torn word and a lost page", async () => {
    const ram = ramAt(5, 300);
    ram.writeUInt32LE(4, range.start + 10 * PAGE);
    ram.fill(0, range.start + 500 * PAGE, range.start + 501 * PAGE);
    await writeFile(path, ram);
    const { violations } = await checkDirtyRam(path, range);
    expect(violations).toBeGreaterThanOrEqual(2);
  });

  test("refuses to judge a guest that has not completed a pass", async () => {
    await writeFile(path, ramAt(1, 300));
    await expect(checkDirtyRam(path, range)).rejects.toThrow("has not completed a pass");
  });
});

test("the boot sector ends with the BIOS's signature and refuses RAM that it cannot walk", () => {
  const disk = dirtierDisk(range);
  expect(disk.readUInt16LE(510)).toBe(0xaa55);
  expect(disk.subarray(512).every((byte) => byte === 0)).toBe(true);
  for (const bad of [{ start: 0 }, { end: 2 ** 31 + PAGE }, { end: range.start }, { end: range.end + 1 }]) {
    expect(() => dirtierDisk({ ...range, ...bad })).toThrow(RangeError);
  }
});
