import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { inspect, verify } from "../../src/index.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { describeWithLoopDevices, describeWithMounts, useMounts } from "../support/mounts.ts";
import { goodImage, useSaves } from "../support/save-under-test.ts";

const MIB = 2 ** 20;
const { scratch, start, listening, argsOf } = useSaves();

describeWithMounts("a file system", () => {
  const { mount, makeReadOnly } = useMounts();

  test.each([1, 8])(
    "that is full ends a save of %i channels and keeps the earlier image",
    async (channels) => {
      mount("tmpfs", scratch.file("d"), "size=12m");
      const old = await goodImage();
      await writeFile(scratch.file("d/vm.mfd"), old);
      const { helper, peer } = await listening(scratch.file("d/vm.mfd"));
      await peer.playWithoutEnd(largeMigration(channels, 32 * MIB));
      expect(await helper.failure()).toMatchObject({
        status: 5,
        code: "NO_SPACE",
        message: expect.stringContaining("free some space"),
      });
      expect(fs.readdirSync(scratch.file("d"))).toEqual(["vm.mfd"]);
      expect(old.equals(await scratch.read("d/vm.mfd"))).toBe(true);
    },
  );

  test("that is full at the first byte refuses before QEMU could connect", async () => {
    mount("tmpfs", scratch.file("d"), "size=64k");
    await writeFile(scratch.file("d/rest"), Buffer.alloc(64 * 1024));
    const helper = start(argsOf(scratch.file("d/vm.mfd")));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "NO_SPACE" });
    expect(helper.events.map(({ event }) => event)).toEqual(["hello", "failed"]);
    expect(fs.readdirSync(scratch.file("d"))).toEqual(["rest"]);
  });

  test("that is too small is found by --expect-bytes", async () => {
    mount("tmpfs", scratch.file("d"), "size=12m");
    const helper = start(argsOf(scratch.file("d/vm.mfd"), ["--expect-bytes", "13M"]));
    expect(await helper.failure()).toMatchObject({
      status: 5,
      code: "NO_SPACE",
      details: { needed: 13 * MIB },
    });
    expect(fs.readdirSync(scratch.file("d"))).toEqual([]);
  });

  test("that is read-only is refused, for a path, in place, and for an existing file", async () => {
    mount("tmpfs", scratch.file("d"), "size=1m");
    await writeFile(scratch.file("d/old"), "as it was");
    makeReadOnly(scratch.file("d"));
    for (const args of [["d/new"], ["d/old"], ["d/old", "--offset", "4096"], ["d/new", "--offset", "4096"]]) {
      const [image = "", ...options] = args;
      const helper = start(argsOf(scratch.file(image), options));
      expect(await helper.failure()).toMatchObject({ status: 5, code: "READ_ONLY" });
    }
    expect((await scratch.read("d/old")).toString()).toBe("as it was");
  });

  test("without O_DIRECT: --direct-io on refuses", async () => {
    mount("ramfs", scratch.file("d"));
    const helper = start(argsOf(scratch.file("d/vm.mfd"), ["--direct-io", "on"]));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "DIRECT_IO_REFUSED" });
    expect(fs.readdirSync(scratch.file("d"))).toEqual([]);
  });

  test("without O_DIRECT: auto goes through the page cache and warns", async () => {
    mount("ramfs", scratch.file("d"));
    const { helper, peer } = await listening(scratch.file("d/vm.mfd"));
    await peer.play(tinyMigration());
    expect(await helper.success()).toMatchObject({ image: { directIo: false } });
    expect(helper.stderr).toContain("does not take O_DIRECT");
    await verify({ image: scratch.file("d/vm.mfd"), workers: 1 });
  });
});

describeWithLoopDevices("a block device", () => {
  const { loopDevice } = useMounts();

  test("holds an image in place", async () => {
    const device = loopDevice(scratch.file("disk"), 32 * MIB);
    const { helper, peer } = await listening(device, ["--offset", "1M"]);
    await peer.play(tinyMigration());
    await helper.success();
    expect(await inspect({ image: device, offset: MIB })).toMatchObject({ sealed: true, base: MIB });
    expect(await verify({ image: device, offset: MIB, workers: 1 })).toMatchObject({
      checked: "checksums and structure",
    });
    expect((await scratch.read("disk")).subarray(0, MIB).every((byte) => byte === 0)).toBe(true);
  });

  test("holds an image through an inherited descriptor", async () => {
    const fd = fs.openSync(loopDevice(scratch.file("disk"), 32 * MIB), "r+");
    const { helper, peer } = await listening("fd:3", [], { fds: [fd] });
    await peer.play(tinyMigration());
    await helper.success();
    fs.closeSync(fd);
    await verify({ image: scratch.file("disk"), workers: 1 });
  });

  test("that is too small is no room, and what is there is no image", async () => {
    const device = loopDevice(scratch.file("disk"), 8 * MIB);
    const { helper, peer } = await listening(device);
    await peer.playWithoutEnd(largeMigration(2, 32 * MIB));
    expect(await helper.failure()).toMatchObject({
      status: 5,
      code: "NO_SPACE",
      message: expect.stringContaining("larger"),
    });
    expect(await inspect({ image: device })).toMatchObject({ sealed: false });
  });

  test("that ends before the offset is no room", async () => {
    const device = loopDevice(scratch.file("disk"), 2 * MIB);
    const { helper, peer } = await listening(device, ["--offset", "4M"]);
    await peer.play(tinyMigration());
    expect(await helper.failure()).toMatchObject({ status: 5, code: "NO_SPACE" });
  });

  test("that is mounted, or otherwise in use, is refused", async () => {
    const device = loopDevice(scratch.file("disk"), 8 * MIB);
    // What mount(2) does with it, too.
    const holder = fs.openSync(device, fs.constants.O_RDONLY | fs.constants.O_EXCL);
    expect(await start(argsOf(device)).failure()).toMatchObject({
      status: 5,
      code: "TARGET_BUSY",
      message: expect.stringContaining("mounted"),
    });
    fs.closeSync(holder);
    expect((await scratch.read("disk")).every((byte) => byte === 0)).toBe(true);
  });

  test("is measured for --expect-bytes", async () => {
    const device = loopDevice(scratch.file("disk"), 8 * MIB);
    const helper = start(argsOf(device, ["--offset", "1M", "--expect-bytes", "7700K"]));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "NO_SPACE", details: { room: 7 * MIB } });
  });
});
