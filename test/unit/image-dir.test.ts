import { expect, test } from "vitest";
import { chooseForImage } from "../../src/demo/image-dir.ts";
import type { Candidate } from "../../src/demo/ram-dir.ts";

const MIB = 2 ** 20;

function candidate(directory: string, inMemory: boolean, room: number): Candidate {
  return { directory, inMemory, room, reason: `${directory}: ${room / MIB} MiB free` };
}

const NOTHING = { bytes: 0, inMemory: true };
const memory = candidate("/tmp", true, 900 * MIB);

test("a disk with room wins over memory that comes first", () => {
  const chosen = chooseForImage([memory, candidate("/var/tmp", false, 500 * MIB)], 400 * MIB, NOTHING);
  expect(chosen).toMatchObject({ directory: "/var/tmp", reason: "/var/tmp: 500 MiB free" });
});

test("without such a disk the image goes into memory, and the reason says so", () => {
  const chosen = chooseForImage([memory, candidate("/var/tmp", false, 300 * MIB)], 400 * MIB, NOTHING);
  expect(chosen).toMatchObject({ directory: "/tmp", reason: "/tmp: 900 MiB free; no disk has room" });
});

test("what is reserved counts where the image would compete with it", () => {
  const disk = candidate("/d", false, 900 * MIB);
  const inMemory = { bytes: 600 * MIB, inMemory: true };
  const onDisk = { bytes: 600 * MIB, inMemory: false };
  expect(() => chooseForImage([memory], 400 * MIB, inMemory)).toThrow(/no directory has room.*900 MiB free/);
  expect(chooseForImage([disk], 400 * MIB, inMemory)).toBe(disk);
  expect(() => chooseForImage([disk], 400 * MIB, onDisk)).toThrow(/no directory has room/);
  expect(chooseForImage([memory], 400 * MIB, onDisk)).toBe(memory);
});

test("a directory that was asked for is taken without a remark", () => {
  expect(chooseForImage([memory], MIB, NOTHING)).toBe(memory);
});

test("a directory that cannot be used is not taken, whatever its room", () => {
  const locked = { ...candidate("/locked", false, 900 * MIB), unusable: "EACCES" };
  expect(chooseForImage([locked, memory], MIB, NOTHING).directory).toBe("/tmp");
});
