import fs from "node:fs";
import { symlink, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, argsOf } = useSaves();

/** What a path is that no image can stand at, and what the refusal says of it. */
const NOWHERE: readonly (readonly [name: string, words: string])[] = [
  ["no/such/file", "/no/such does not exist: create it first"],
  ["file/vm.mfd", "/file is no directory"],
  ["loop/vm.mfd", "is a loop of symbolic links"],
  ["x".repeat(256), "is too long"],
  ["/proc/vm.mfd", "no file can be created in /proc"],
];

describe.each([[[]], [["--offset", "4096"]]])("a path where no file can stand, with %j", (args) => {
  test.each(NOWHERE)("%s", async (name, words) => {
    await writeFile(scratch.file("file"), "");
    await symlink("loop", scratch.file("loop"));
    const image = name.startsWith("/") ? name : scratch.file(name);
    expect(await start(argsOf(image, args)).failure()).toMatchObject({
      status: 5,
      code: "TARGET_REFUSED",
      message: expect.stringContaining(words),
    });
    expect(await scratch.names()).toEqual(["file", "loop"]);
  });
});

describe("the file that stdout or stderr goes to is no target: what is told would be written over the image", () => {
  test.each(["fd:1", "fd:2", "fd:3"])("%s", async (image) => {
    const told = scratch.file("told");
    const fd = fs.openSync(told, "w+");
    // Only stderr under fd:2, so that the events can still be read.
    const shell = image === "fd:2" ? 'exec "$0" "$@" 2<>told' : 'exec "$0" "$@" 1<>told';
    const helper = start(argsOf(image), { fds: [fd], shell: `cd "${scratch.file(".")}" && ${shell}` });
    expect(await helper.exit()).toBe(5);
    fs.closeSync(fd);
    expect(fs.readFileSync(told, "utf8")).toContain("where stdout or stderr goes");
    expect(await scratch.names()).toEqual(["told"]);
  });
});

test("from a current directory that was removed nothing is begun", async () => {
  const shell = 'cd "$(mktemp -d)" && rmdir "$PWD" && exec "$0" "$@"';
  const helper = start(argsOf(scratch.file("vm.mfd")), { shell });
  expect(await helper.failure()).toMatchObject({
    status: 2,
    code: "USAGE",
    message: expect.stringContaining("current directory"),
  });
  expect(await scratch.names()).toEqual([]);
});
