import { closeSync, constants, fstatSync, openSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ShortRuns } from "../../../src/pool/placing/short-runs.ts";
import { useScratch } from "../../support/scratch.ts";

const KIB = 1024;
const scratch = useScratch();
let file: string;
let fd: number;

beforeEach(() => {
  file = scratch.file("image");
  fd = openSync(file, constants.O_RDWR | constants.O_CREAT | constants.O_DIRECT, 0o600);
});

afterEach(() => closeSync(fd));

/** How many descriptors of this process lead to the file. */
function descriptors(): number {
  const links = readdirSync("/proc/self/fd").map((number) => {
    try {
      return readlinkSync(`/proc/self/fd/${number}`);
    } catch {
      return "";
    }
  });
  return links.filter((link) => link === file).length;
}

test("a short run is written where it belongs, through a descriptor that is closed again", () => {
  const runs = new ShortRuns({ fd, base: 0, directIo: true }, true);
  expect(runs.write(Buffer.alloc(4 * KIB, 7), 64 * KIB)).toBe(true);
  expect(runs.write(Buffer.alloc(28 * KIB, 8), 0)).toBe(true);
  expect(descriptors()).toBe(2);
  runs.close();
  expect(descriptors()).toBe(1);
  const bytes = readFileSync(file);
  expect(bytes.length).toBe(68 * KIB);
  expect(bytes.subarray(0, 28 * KIB).equals(Buffer.alloc(28 * KIB, 8))).toBe(true);
  expect(bytes.subarray(28 * KIB, 64 * KIB).equals(Buffer.alloc(36 * KIB))).toBe(true);
  expect(bytes.subarray(64 * KIB).equals(Buffer.alloc(4 * KIB, 7))).toBe(true);
});

test.each([
  ["a long run", 32 * KIB, true, true],
  ["a file that is open without O_DIRECT", 4 * KIB, false, true],
  ["a target that is no regular file", 4 * KIB, true, false],
])("%s is left to the caller", (_what, bytes, directIo, useful) => {
  const runs = new ShortRuns({ fd, base: 0, directIo }, useful);
  expect(runs.write(Buffer.alloc(bytes), 0)).toBe(false);
  runs.close();
  expect(fstatSync(fd).size).toBe(0);
});
