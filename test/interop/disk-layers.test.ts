import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { DiskRecord } from "../../src/formats/image/model.ts";
import { localPath } from "../../src/vm/disks/block-info.ts";
import { checkDisks } from "../../src/vm/disks/check.ts";
import { holdsNothing } from "../../src/vm/disks/qcow2.ts";
import { writeSector } from "../support/counting-vm.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();

const BASE: DiskRecord = {
  device: "disk0",
  node: "node0",
  file: "/vm.raw",
  format: "raw",
  readOnly: false,
  fileBytes: 1_048_576,
  modifiedNs: "1",
  snapshotId: null,
};

function overlay(size = "1G"): DiskRecord {
  const file = scratch.file("overlay.qcow2");
  execFileSync("qemu-img", ["create", "-q", "-f", "qcow2", file, size]);
  return { ...BASE, file, format: "qcow2", fileBytes: 196_624, modifiedNs: "2" };
}

test.each([
  ["/a//b", "/a/b"],
  ["file:/a", "/a"],
  ["a.raw", `${process.cwd()}/a.raw`],
  ['json:{"driver":"raw","file":{"driver":"file","filename":"/a"}}', "/a"],
  ['json:{"backing":{"driver":"file","filename":"/below"},"file":{"driver":"file","filename":"/a"}}', "/a"],
  ['json:{"driver":"nbd","server.host":"h"}', null],
  ["json:{", null],
  ["nbd://host/disk", null],
  ["", null],
])("QEMU's filename %s is the path %s", (filename, path) => {
  expect(localPath(filename, process.pid)).toBe(path);
});

test("a relative filename of a process that is not known is no path", () => {
  expect(localPath("a.raw", null)).toBe(null);
});

test("an overlay holds nothing until something is written to it", async () => {
  // 2 TiB: an L1 table of several chunks.
  for (const size of ["1M", "2T"]) {
    const fresh = overlay(size);
    expect(await holdsNothing(fresh)).toBe(true);
    await writeSector(fresh.file as string);
    expect(await holdsNothing(fresh)).toBe(false);
  }
});

test("what is no qcow2 is not taken for an empty one", async () => {
  await writeFile(scratch.file("short"), "QFI");
  await writeFile(scratch.file("zeros"), Buffer.alloc(4096));
  for (const name of ["short", "zeros", "missing"]) {
    expect(await holdsNothing({ ...BASE, format: "qcow2", file: scratch.file(name) })).toBe(false);
  }
  expect(await holdsNothing({ ...overlay(), format: "raw" })).toBe(false);
  expect(await holdsNothing({ ...overlay(), file: null })).toBe(false);
});

test("a disk fits as it was, below empty overlays, and as a copy", async () => {
  for (const layers of [
    [BASE],
    [overlay(), BASE],
    [{ ...BASE, file: "/copy.raw", modifiedNs: "9" }],
  ] as const) {
    await checkDisks([BASE], [layers], "vm.mfd");
  }
  await checkDisks([{ ...BASE, readOnly: true }], [], "vm.mfd");
});

test.each<[string, Partial<DiskRecord>]>([
  ["/vm.raw was written since", { modifiedNs: "3" }],
  ["/vm.raw had 1048576 bytes and has 5", { fileBytes: 5 }],
  ["/vm.raw was raw and is qcow2", { format: "qcow2" }],
  ["/vm.raw got or lost an internal snapshot", { snapshotId: "1" }],
])("%s: is refused, below an overlay too", async (message, change) => {
  for (const layers of [[{ ...BASE, ...change }], [overlay(), { ...BASE, ...change }]] as const) {
    await expect(checkDisks([BASE], [layers], "vm.mfd")).rejects.toMatchObject({
      code: "DISK_CHANGED",
      message: expect.stringContaining(message),
    });
  }
});

test("a missing disk, an overlay over another disk, and one that was written are refused", async () => {
  const written = overlay();
  await writeSector(written.file as string);
  for (const [layers, message] of [
    [[], "disk0 (/vm.raw) is missing"],
    [
      [
        [
          { ...written, file: "/x" },
          { ...BASE, file: "/other.raw" },
        ],
      ],
      "/vm.raw was raw and is qcow2",
    ],
    [[[written, BASE]], `${written.file}, which lies over /vm.raw, was written`],
  ] as const) {
    await expect(checkDisks([BASE], layers, "vm.mfd")).rejects.toMatchObject({
      code: "DISK_CHANGED",
      message: expect.stringContaining(message),
    });
  }
});
