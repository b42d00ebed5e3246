import { expect, test } from "vitest";
import { chooseForImage } from "../../src/vm/image-dir.ts";
import type { Candidate } from "../../src/vm/ram-dir.ts";

const MIB = 2 ** 20;

function candidate(directory: string, inMemory: boolean, room: number): Candidate {
  return { directory, inMemory, room, reason: `${directory}: ${room / MIB} MiB free` };
}

const memory = candidate("/tmp", true, 900 * MIB);

test("a disk with room wins over memory that comes first", () => {
  const chosen = chooseForImage([memory, candidate("/var/tmp", false, 500 * MIB)], 400 * MIB, 0);
  expect(chosen).toMatchObject({ directory: "/var/tmp", reason: "/var/tmp: 500 MiB free" });
});

test("without such a disk the image goes into memory, and the reason says so", () => {
  const chosen = chooseForImage([memory, candidate("/var/tmp", false, 300 * MIB)], 400 * MIB, 0);
  expect(chosen).toMatchObject({ directory: "/tmp", reason: "/tmp: 900 MiB free; no disk has room" });
});

test("memory has to hold what is reserved as well, a disk has not", () => {
  expect(() => chooseForImage([memory], 400 * MIB, 600 * MIB)).toThrow(/no directory has room.*900 MiB free/);
  expect(chooseForImage([candidate("/d", false, 900 * MIB)], 400 * MIB, 600 * MIB).directory).toBe("/d");
});

test("a directory that was asked for is taken without a remark", () => {
  expect(chooseForImage([memory], MIB, 0)).toBe(memory);
});

test("a directory that cannot be used is not taken, whatever its room", () => {
  const locked = { ...candidate("/locked", false, 900 * MIB), unusable: "EACCES" };
  expect(chooseForImage([locked, memory], MIB, 0).directory).toBe("/tmp");
});
