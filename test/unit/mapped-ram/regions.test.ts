import { closeSync, fstatSync, ftruncateSync, openSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { RamTables, reserveRamMemory } from "../../../src/pool/placing/ram-tables.ts";
import { newRegionBits, Regions } from "../../../src/pool/placing/regions.ts";
import { useScratch } from "../../support/scratch.ts";

const MIB = 2 ** 20;
const PAGE = 4096;
/** Pages in 128 KiB, which is a long run. */
const LONG = 32;
/** As many of them, 64 MiB, are a connection without gaps. */
const DENSE = 512;
const BLOCK = { name: "pc.ram", usedLength: 64 * MIB, pageSize: PAGE, bitmapOffset: PAGE, pagesOffset: MIB };

const scratch = useScratch();
let fd: number;
let tables: RamTables;
let regions: Regions;

beforeEach(() => {
  fd = openSync(scratch.file("image"), "w+");
  ftruncateSync(fd, 65 * MIB);
  const memory = reserveRamMemory("presence");
  RamTables.publish(memory, [BLOCK]);
  tables = new RamTables(memory);
  regions = new Regions(newRegionBits(), fd, tables);
});

afterEach(() => closeSync(fd));

function reserved(): number {
  return fstatSync(fd).blocks * 512;
}

function roomyPages(): number {
  return tables.roomy(0).reduce((sum, byte) => sum + byte.toString(2).replaceAll("0", "").length, 0);
}

test("long runs, one behind the other, reserve what of their region belongs to the block", () => {
  for (let page = 0; page < DENSE * LONG; page += LONG) regions.reserve(0, page, LONG);
  // Of the third region of 32 MiB, only the first is the block's.
  expect(reserved()).toBe(MIB);
  expect(roomyPages()).toBe(MIB / PAGE);
});

test("any number of short runs reserves nothing", () => {
  for (let page = 0; page < 2 * DENSE * LONG; page += LONG) regions.reserve(0, page, LONG - 1);
  expect(reserved()).toBe(0);
  expect(roomyPages()).toBe(0);
});

test("a short run among the long ones begins the count anew", () => {
  const last = DENSE - 1;
  for (let page = 0; page < last * LONG; page += LONG) regions.reserve(0, page, LONG);
  regions.reserve(0, last * LONG, 1);
  for (let page = 0; page < last * LONG; page += LONG) regions.reserve(0, page, LONG);
  expect(reserved()).toBe(0);
});

test("a page that was present and is zero now has room to give back; one that never came has none", () => {
  tables.setPresent(0, 5, 3);
  tables.clear(0, 6, 4);
  expect(tables.bitmap(0)[0]).toBe(0b0010_0000);
  expect(tables.roomy(0)[0]).toBe(0b1100_0000);
  expect(tables.roomy(0)[1]).toBe(0);
});
