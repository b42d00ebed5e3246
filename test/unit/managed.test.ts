import { chmod, mkdir, rm, stat, symlink, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import {
  defaultStateDirectory,
  managedNames,
  managedPlace,
  monitorArguments,
} from "../../src/vm/managed/directory.ts";
import { withManagedLock } from "../../src/vm/managed/lock.ts";
import { readRecord, writeRecord } from "../../src/vm/managed/record.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();

test.each(["web", "a", "_db-1.old", "-", "x".repeat(64)])("%s is a name", (name) => {
  const { image, resuming, directory } = managedPlace(name, scratch.directory);
  expect(image).toBe(`${directory}/${name}.mfd`);
  expect(resuming).toBe(`${directory}/${name}.mfd.resuming`);
});

test.each(["", ".", "..", ".web", "a/b", "../web", "a b", "wéb", "web\n", "x".repeat(65)])(
  "%j is no name",
  (name) => {
    expect(() => managedPlace(name, scratch.directory)).toThrow(expect.objectContaining({ code: "USAGE" }));
  },
);

test("the state directory is made for this user alone, and refused where it is not", async () => {
  const { directory } = managedPlace("web", scratch.file("a/b"));
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
  await chmod(directory, 0o750);
  expect(() => managedPlace("web", directory)).toThrow(expect.objectContaining({ code: "IO" }));
  await writeFile(scratch.file("file"), "");
  expect(() => managedPlace("web", scratch.file("file"))).toThrow(expect.objectContaining({ code: "IO" }));
});

test("the default state directory is the system's for root, and the user's own for others", () => {
  const expected = process.getuid?.() === 0 ? /^\/var\/lib\/multifd-helper$/ : /\/multifd-helper$/;
  expect(defaultStateDirectory()).toMatch(expected);
});

test("a socket whose path is too long is refused before QEMU is started", async () => {
  const place = managedPlace("x".repeat(64), scratch.file("y".repeat(64)));
  expect(() => monitorArguments(place)).toThrow(expect.objectContaining({ code: "USAGE" }));
});

test("a comma in a path does not end QEMU's option", () => {
  const [, value] = monitorArguments(managedPlace("web", scratch.file("a,b")));
  expect(value).toMatch(/^unix:.*\/a,,b\/web\.qmp,server=on,wait=off$/);
});

test("names are read back from the files, however they look like ours", async () => {
  const files = ["web.mfd", "web.mfd.resuming", "web.vm.json", "web.qmp", ".web.lock", "a.mfd.mfd"];
  files.push("b.vm.json.mfd.resuming", ".c.mfd.multifd-partial", ".d.mfd", "e f.mfd", ".mfd", "g.mfd.old");
  for (const file of files) await writeFile(scratch.file(file), "");
  expect(managedNames(scratch.directory)).toEqual({
    saved: ["a.mfd", "b.vm.json", "web"],
    unfinished: ["c"],
    recorded: ["web"],
  });
  await rm(scratch.directory, { recursive: true });
  expect(managedNames(scratch.directory)).toEqual({ saved: [], unfinished: [], recorded: [] });
});

test("one at a time works on a VM, and nothing stays behind", async () => {
  const place = managedPlace("web", scratch.file("state"));
  const other = managedPlace("db", scratch.file("state"));
  await withManagedLock(place, async () => {
    await expect(withManagedLock(place, async () => 1)).rejects.toMatchObject({ code: "TARGET_BUSY" });
    expect(await withManagedLock(other, async () => 2)).toBe(2);
  });
  await expect(withManagedLock(place, () => Promise.reject(new Error("no")))).rejects.toThrow("no");
  // What a killed process left is no lock.
  await writeFile(place.lock, "");
  expect(await withManagedLock(place, async () => 3)).toBe(3);
  expect(await scratch.names()).toEqual(["state"]);
  await expect(stat(place.lock)).rejects.toThrow("ENOENT");
});

test("a lock that is a link is not followed", async () => {
  const place = managedPlace("web", scratch.file("state"));
  await symlink(scratch.file("elsewhere"), place.lock);
  await expect(withManagedLock(place, async () => 1)).rejects.toMatchObject({ code: "IO" });
  expect(await scratch.names()).toEqual(["state"]);
});

test("a record says again what was written, and one that is none is refused", async () => {
  await mkdir(scratch.file("state"), { mode: 0o700 });
  const place = managedPlace("web", scratch.file("state"));
  expect(readRecord(place)).toBeNull();
  writeRecord(place, ["qemu", "-m", "1G"], "/srv");
  expect(readRecord(place)).toEqual({ version: 1, command: ["qemu", "-m", "1G"], cwd: "/srv" });
  expect((await stat(place.record)).mode & 0o777).toBe(0o600);
  for (const text of [
    "",
    "{}",
    '{"version":2,"command":["q"],"cwd":"/"}',
    '{"version":1,"command":[],"cwd":"/"}',
  ]) {
    await writeFile(place.record, text);
    expect(() => readRecord(place)).toThrow(expect.objectContaining({ code: "IO" }));
  }
});
