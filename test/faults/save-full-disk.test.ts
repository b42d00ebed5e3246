import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { inspect, verify } from "../../src/index.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { type FaultSpec, withFault } from "../support/fault-spec.ts";
import { describeWithLoopDevices, describeWithMounts, type Mounts, useMounts } from "../support/mounts.ts";
import { goodImage, savedBefore, useSaves } from "../support/save-under-test.ts";

const MIB = 2 ** 20;
const { scratch, listening } = useSaves();
const NO_SPACE = { status: 5, code: "NO_SPACE", message: expect.stringContaining("free some space") };

/** Takes all room that is left, to the last block. */
function fill(directory: string): void {
  const fd = fs.openSync(`${directory}/filler`, "w");
  try {
    for (let size = MIB; size >= 4096; ) {
      try {
        fs.writeSync(fd, Buffer.alloc(size, 1));
      } catch {
        size /= 2;
      }
    }
    fs.fsyncSync(fd);
  } catch (error) {
    if ((error as { code?: string }).code !== "ENOSPC") throw error;
  } finally {
    fs.closeSync(fd);
  }
}

function fullDiskTests(
  makeDisk: (mounts: Mounts) => void,
  directIo: "on" | "off",
  format: "stream" | "mapped-ram",
): void {
  const mounts = useMounts();
  const how = ["--format", format, "--direct-io", directIo];

  async function diskWithImage(): Promise<Buffer> {
    makeDisk(mounts);
    const old = await goodImage();
    await writeFile(scratch.file("d/vm.mfd"), old);
    return old;
  }

  async function expectOld(old: Buffer): Promise<void> {
    expect(fs.readdirSync(scratch.file("d")).filter((name) => name.includes("vm.mfd"))).toEqual(["vm.mfd"]);
    expect(old.equals(await scratch.read("d/vm.mfd"))).toBe(true);
  }

  test.each([1, 8])("full in the middle of the data of %i channels", async (channels) => {
    const old = await diskWithImage();
    const { helper, peer } = await listening(scratch.file("d/vm.mfd"), how);
    await peer.playWithoutEnd(largeMigration(channels, 48 * MIB));
    expect(await helper.failure()).toMatchObject(NO_SPACE);
    await expectOld(old);
  });

  test("full when the index is written", async () => {
    const old = await diskWithImage();
    const run = await listening(scratch.file("d/vm.mfd"), [...how, "--hold"]);
    await run.peer.play(largeMigration(2, 4 * MIB));
    await run.helper.waitEvent("drained");
    fill(scratch.file("d"));
    run.helper.say("commit");
    expect(await run.helper.failure()).toMatchObject(NO_SPACE);
    await expectOld(old);
  });
}

for (const format of ["stream", "mapped-ram"] as const) {
  describeWithMounts(`a save --format ${format} to a small tmpfs`, () => {
    fullDiskTests(({ mount }) => mount("tmpfs", scratch.file("d"), "size=24m"), "off", format);
  });
  for (const directIo of ["on", "off"] as const) {
    describeWithLoopDevices(`a save --format ${format} to a small ext4, --direct-io ${directIo}`, () => {
      fullDiskTests(({ mountExt4 }) => mountExt4(scratch.file("d"), 24 * MIB), directIo, format);
    });
  }
}

test.each([
  ["the superblock that says writing", { thread: "main", call: "write", nth: 2 }],
  ["the sealed superblock", { thread: "main", call: "write", nth: 4 }],
  ["the last flush", { thread: "main", call: "fdatasync", nth: 4 }],
] as const)("no space is told as such where only some file systems have it: %s", async (_what, place) => {
  // A file system that copies on write needs room even to write a block again.
  const fault: FaultSpec = { ...place, when: "before", act: "fail", errno: "ENOSPC" };
  const old = await goodImage();
  await writeFile(scratch.file("vm.mfd"), old);
  const { helper, peer } = await listening(scratch.file("vm.mfd"), [], withFault(fault));
  await peer.play(tinyMigration());
  expect(await helper.failure()).toMatchObject(NO_SPACE);
  expect(await scratch.names()).toEqual(["vm.mfd"]);
  expect(old.equals(await scratch.read("vm.mfd"))).toBe(true);
});

describeWithMounts("a disk that has room for one image only", () => {
  const { mount } = useMounts();

  async function oneImage(): Promise<string> {
    mount("tmpfs", scratch.file("d"), "size=32m");
    const image = scratch.file("d/vm.mfd");
    await savedBefore(image, largeMigration(2, 20 * MIB));
    return image;
  }

  test("keeps the earlier one", async () => {
    const image = await oneImage();
    const { helper, peer } = await listening(image);
    await peer.playWithoutEnd(largeMigration(2, 20 * MIB));
    expect(await helper.failure()).toMatchObject(NO_SPACE);
    await verify({ image, workers: 1 });
  });

  test("takes the new one with --replace, whose room --expect-bytes counts in", async () => {
    const image = await oneImage();
    const before = await inspect({ image });
    const { helper, peer } = await listening(image, ["--replace", "--expect-bytes", "21M"]);
    await peer.play(largeMigration(2, 20 * MIB));
    await helper.success();
    await verify({ image, workers: 1 });
    expect((await inspect({ image })).imageUuid).not.toBe(before.imageUuid);
    expect(fs.readdirSync(scratch.file("d"))).toEqual(["vm.mfd"]);
  });

  test("in place, --expect-bytes counts in what the file takes already", async () => {
    const image = await oneImage();
    const fd = fs.openSync(image, "r+");
    const { helper, peer } = await listening("fd:3", ["--expect-bytes", "21M"], { fds: [fd] });
    await peer.play(largeMigration(2, 20 * MIB));
    await helper.success();
    fs.closeSync(fd);
    await verify({ image, workers: 1 });
  });

  test("has none when a save with --replace fails", async () => {
    const image = await oneImage();
    const { helper, peer } = await listening(image, ["--replace"]);
    await peer.play(tinyMigration().slice(1));
    expect(await helper.failure()).toMatchObject({ code: "STREAM_INCOMPLETE" });
    expect(fs.readdirSync(scratch.file("d"))).toEqual([]);
  });

  test("still has the earlier one when nobody connects to a save with --replace", async () => {
    const image = await oneImage();
    const { helper } = await listening(image, ["--replace", "--connect-timeout", "0.5"]);
    expect(await helper.failure()).toMatchObject({ code: "CONNECT_TIMEOUT" });
    await verify({ image, workers: 1 });
  });
});

describeWithMounts("RAM that is larger than the disk", () => {
  const { mount } = useMounts();
  const blocks = [{ name: "mem", bytes: 32 * MIB }];
  const MOSTLY_ZERO = { zeroEvery: 2, extraRounds: 0 };

  test.each(["7.2", "10"] as const)(
    "is warned of, and saved when enough of it is zero: QEMU %s",
    async (style) => {
      mount("tmpfs", scratch.file("d"), "size=24m");
      const { helper, peer } = await listening(scratch.file("d/vm.mfd"));
      await peer.play(tinyMigration(2, { style, blocks, ...MOSTLY_ZERO }));
      await helper.success();
      const warnings = helper.stderr
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line));
      expect(warnings.filter(({ ramBytes }) => ramBytes === 32 * MIB)).toHaveLength(1);
      await verify({ image: scratch.file("d/vm.mfd"), workers: 1 });
    },
  );

  test("is not warned of where it fits", async () => {
    mount("tmpfs", scratch.file("d"), "size=64m");
    const { helper, peer } = await listening(scratch.file("d/vm.mfd"));
    await peer.play(tinyMigration(2, { blocks, ...MOSTLY_ZERO }));
    await helper.success();
    expect(helper.stderr).not.toContain("of RAM");
  });
});
