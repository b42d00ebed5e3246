import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { collectMeta, MAX_META_BYTES } from "../../../src/cli/meta.ts";

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "meta-"));
});
afterAll(() => rm(folder, { recursive: true }));

test("texts and files are collected under their keys, files byte by byte", async () => {
  const path = join(folder, "binary");
  await writeFile(path, Uint8Array.of(0xff, 0x00, 0xfe));
  const meta = await collectMeta([["name", "vm7"]], [["blob", path]]);
  expect(Object.keys(meta ?? {})).toEqual(["name", "blob"]);
  expect(meta?.name).toBe("vm7");
  expect(meta?.blob).toEqual(Buffer.from([0xff, 0x00, 0xfe]));
});

test("nothing given is nothing stored", async () => {
  expect(await collectMeta()).toBeUndefined();
});

test("a key named __proto__ is a key like any other", async () => {
  const meta = await collectMeta([["__proto__", "x"]]);
  expect(Object.entries(meta ?? {})).toEqual([["__proto__", "x"]]);
});

test("a key given twice is refused, also across the two options", async () => {
  const path = join(folder, "text");
  await writeFile(path, "x");
  await expect(collectMeta([["a", "1"]], [["a", path]])).rejects.toMatchObject({
    code: "USAGE",
    message: expect.stringContaining("key a twice"),
  });
});

test("16 MiB in all are accepted and one byte more is refused", async () => {
  const path = join(folder, "large");
  await writeFile(path, new Uint8Array(MAX_META_BYTES - 1));
  const meta = await collectMeta([["a", "1"]], [["large", path]]);
  expect(meta?.large).toHaveLength(MAX_META_BYTES - 1);
  await expect(collectMeta([["a", "12"]], [["large", path]])).rejects.toMatchObject({
    code: "USAGE",
    message: expect.stringContaining("16 MiB"),
  });
});

test("a file without end is refused instead of read for ever", async () => {
  await expect(collectMeta([], [["zero", "/dev/zero"]])).rejects.toMatchObject({ code: "USAGE" });
});

test("a file that cannot be read is an I/O failure that names it", async () => {
  const path = join(folder, "missing");
  await expect(collectMeta([], [["a", path]])).rejects.toMatchObject({
    code: "IO",
    details: { path, errno: "ENOENT" },
  });
});
