import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type Candidate, choose, pickRamDirectory } from "../../src/demo/ram-dir.ts";
import { createRamFile } from "../../src/demo/ram-file.ts";

const MIB = 2 ** 20;

function candidate(directory: string, inMemory: boolean, room: number, unusable?: string): Candidate {
  const rest = unusable === undefined ? {} : { unusable };
  return {
    directory,
    inMemory,
    room,
    reason: `${directory}: ${unusable ?? `${room / MIB} MiB free`}`,
    ...rest,
  };
}

describe("the choice", () => {
  test("passes over a container's small /dev/shm", () => {
    const shm = candidate("/dev/shm", true, 64 * MIB);
    const run = candidate("/run/user/0", true, 900 * MIB);
    expect(choose([shm, run], 512 * MIB).directory).toBe("/run/user/0");
    expect(choose([shm, run], 64 * MIB).directory).toBe("/dev/shm");
  });

  test("prefers memory to disk, and takes a disk rather than nothing", () => {
    const disk = candidate("/tmp", false, 9000 * MIB);
    const memory = candidate("/mnt/ram", true, 600 * MIB);
    expect(choose([disk, memory], 512 * MIB).directory).toBe("/mnt/ram");
    expect(choose([disk, memory], 1024 * MIB).directory).toBe("/tmp");
  });

  test("never takes what cannot be used", () => {
    const locked = candidate("/locked", true, 9000 * MIB, "EACCES");
    expect(() => choose([locked], MIB)).toThrow("EACCES");
  });

  test("with room nowhere is one error that names every place and its room", () => {
    const places = [candidate("/dev/shm", true, 64 * MIB), candidate("/tmp", false, 100 * MIB)];
    expect(() => choose(places, 512 * MIB)).toThrow(
      expect.objectContaining({
        code: "NO_SPACE",
        message: expect.stringMatching(/512 MiB.*\/dev\/shm: 64 MiB free; \/tmp: 100 MiB free/),
      }),
    );
  });
});

describe("on this machine", () => {
  test("more RAM than any machine has is refused, not attempted", async () => {
    await expect(pickRamDirectory(2 ** 52)).rejects.toMatchObject({ code: "NO_SPACE" });
  });

  test("a directory that is not there is named", async () => {
    await expect(pickRamDirectory(MIB, "/nonexistent")).rejects.toMatchObject({
      code: "IO",
      message: expect.stringContaining("/nonexistent"),
    });
  });

  test("a RAM file can be opened by path, has its size, and leaves no name behind", async () => {
    const directory = await mkdtemp(join(tmpdir(), "ram-"));
    const ram = await createRamFile(3 * MIB, directory);
    expect((await stat(ram.path)).size).toBe(3 * MIB);
    expect(await readdir(directory)).toEqual([]);
    await ram.close();
    await expect(stat(ram.path)).rejects.toThrow("ENOENT");
    await rm(directory, { recursive: true });
  });
});
