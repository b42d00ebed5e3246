import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { inspect, restore, verify } from "../../src/index.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { type FaultSpec, withFault } from "../support/fault-spec.ts";
import { describeWithLoopDevices, useMounts } from "../support/mounts.ts";
import { goodImage, savedBefore, useSaves } from "../support/save-under-test.ts";

const MIB = 2 ** 20;
const { scratch, start, listening } = useSaves();
const FAILED = { status: 5, code: "IO" };

type Place = Pick<FaultSpec, "thread" | "call" | "nth">;
const WRITES: readonly (readonly [string, Place])[] = [
  ["the superblock that says writing", { thread: "main", call: "write", nth: 2 }],
  ["its flush", { thread: "main", call: "fdatasync", nth: 1 }],
  ["the first block of data", { thread: "worker", call: "write", nth: 1 }],
  ["a later block of data", { thread: "worker", call: "write", nth: 4 }],
  ["the flush of the data", { thread: "main", call: "fdatasync", nth: 2 }],
  ["the index", { thread: "main", call: "write", nth: 3 }],
  ["cutting the file", { thread: "main", call: "ftruncateSync", nth: 1 }],
  ["the flush of the index", { thread: "main", call: "fdatasync", nth: 3 }],
  ["the sealed superblock", { thread: "main", call: "write", nth: 4 }],
  ["its flush", { thread: "main", call: "fdatasync", nth: 4 }],
  ["the rename", { thread: "main", call: "renameSync", nth: 1 }],
];

/** The same with --format mapped-ram, whose pages are written at their places. */
const PLACED_WRITES: readonly (readonly [string, Place])[] = [
  ["cutting what was there", { thread: "main", call: "ftruncateSync", nth: 1 }],
  ["its flush", { thread: "main", call: "fdatasync", nth: 1 }],
  ["the first pages", { thread: "worker", call: "write", nth: 1 }],
  ["later pages", { thread: "worker", call: "write", nth: 4 }],
  ["the device state", { thread: "worker", call: "write", nth: 17 }],
  ["the head", { thread: "main", call: "write", nth: 2 }],
  ["the map", { thread: "main", call: "write", nth: 3 }],
  ["the metadata", { thread: "main", call: "write", nth: 4 }],
  ["the checksums", { thread: "main", call: "write", nth: 5 }],
  ["the place of the mark", { thread: "main", call: "write", nth: 6 }],
  ["cutting the file", { thread: "main", call: "ftruncateSync", nth: 2 }],
  ["the flush of all that", { thread: "main", call: "fdatasync", nth: 2 }],
  ["the footer", { thread: "main", call: "write", nth: 7 }],
  ["its flush", { thread: "main", call: "fdatasync", nth: 3 }],
  ["QEMU's magic", { thread: "main", call: "write", nth: 8 }],
  ["its flush", { thread: "main", call: "fdatasync", nth: 4 }],
  ["the rename", { thread: "main", call: "renameSync", nth: 1 }],
];

describe("an I/O error", () => {
  describe.each([
    ["stream", WRITES],
    ["mapped-ram", PLACED_WRITES],
  ] as const)("--format %s", (format, writes) => {
    test.each(writes)(
      "at %s of a save leaves the earlier image and nothing else: %j",
      async (_what, place) => {
        const old = await goodImage();
        await writeFile(scratch.file("vm.mfd"), old);
        const fault: FaultSpec = { ...place, when: "before", act: "fail" };
        const args = ["--format", format, "--workers", "1"];
        const { helper, peer } = await listening(scratch.file("vm.mfd"), args, withFault(fault));
        await peer.play(largeMigration(2, 8 * MIB));
        expect(await helper.failure()).toMatchObject({ ...FAILED, message: expect.stringContaining("EIO") });
        expect(await scratch.names()).toEqual(["vm.mfd"]);
        expect(old.equals(await scratch.read("vm.mfd"))).toBe(true);
      },
    );
  });

  test.each([
    { thread: "main", call: "read", nth: 1 },
    { thread: "main", call: "read", nth: 2 },
    { thread: "worker", call: "read", nth: 1 },
    { thread: "worker", call: "read", nth: 3 },
  ] as const)("while an image is read ends verify: %j", async (place) => {
    await savedBefore(scratch.file("vm.mfd"), largeMigration(2, 8 * MIB));
    const fault: FaultSpec = { ...place, when: "before", act: "fail" };
    const verifying = start(["verify", scratch.file("vm.mfd"), "--json", "--workers", "1"], withFault(fault));
    expect(await verifying.failure()).toMatchObject({ ...FAILED, message: expect.stringContaining("EIO") });
    await verify({ image: scratch.file("vm.mfd"), workers: 1 });
  });
});

describeWithLoopDevices("a block device that fails behind its first megabytes", () => {
  const { mount, loopDevice } = useMounts();

  // Its file has holes that the file system beneath has no room for.
  function failingDevice(): string {
    mount("tmpfs", scratch.file("d"), "size=4m");
    return loopDevice(scratch.file("d/disk"), 64 * MIB);
  }

  test.each([
    ["stream", "on"],
    ["stream", "off"],
    ["mapped-ram", "on"],
    ["mapped-ram", "off"],
  ])("is told, and has no image, --format %s --direct-io %s", async (format, directIo) => {
    const device = failingDevice();
    const { helper, peer } = await listening(device, ["--format", format, "--direct-io", directIo]);
    // Through the page cache only a flush tells what became of the writes.
    await peer.play(largeMigration(2, 16 * MIB));
    const { status, code } = await helper.failure();
    expect({ status, code }).toEqual({ status: 5, code: expect.stringMatching(/^(IO|NO_SPACE)$/) });
    const fd = fs.openSync(device, "r");
    fs.closeSync(fd);
    await expect(restore({ image: device, workers: 1, connect: "unix:/nonexistent" })).rejects.toMatchObject({
      code: expect.stringMatching(/^(NOT_SEALED|NOT_AN_IMAGE)$/),
    });
  });
});

describeWithLoopDevices("a write that is torn, and the helper gone with it", () => {
  const { loopDevice } = useMounts();
  const TORN: readonly (readonly [string, Place])[] = [
    ["the superblock that says writing", { thread: "main", call: "write", nth: 1 }],
    ["the first block of data", { thread: "worker", call: "write", nth: 1 }],
    ["a later block of data", { thread: "worker", call: "write", nth: 5 }],
    ["the index", { thread: "main", call: "write", nth: 2 }],
    ["the sealed superblock", { thread: "main", call: "write", nth: 3 }],
  ];

  /** A device is marked with two writes first. */
  const PLACED_TORN: readonly (readonly [string, Place])[] = [
    ["what stands where the old image began", { thread: "main", call: "write", nth: 1 }],
    ["the footer that says writing", { thread: "main", call: "write", nth: 2 }],
    ["later pages", { thread: "worker", call: "write", nth: 5 }],
    ["the head", { thread: "main", call: "write", nth: 3 }],
    ["the metadata", { thread: "main", call: "write", nth: 5 }],
    ["the place of the mark", { thread: "main", call: "write", nth: 7 }],
    ["the footer", { thread: "main", call: "write", nth: 8 }],
    ["QEMU's magic", { thread: "main", call: "write", nth: 9 }],
  ];

  test.each(PLACED_TORN)("over an image in place, --format mapped-ram: %s", async (_what, place) => {
    const device = loopDevice(scratch.file("disk"), 32 * MIB);
    const format = "mapped-ram";
    await savedBefore(device, largeMigration(2, 12 * MIB), { format });
    const fault: FaultSpec = { ...place, when: "before", act: "tear" };
    const { helper, peer } = await listening(
      device,
      ["--format", format, "--workers", "1"],
      withFault(fault),
    );
    await peer.play(largeMigration(2, 12 * MIB)).catch(() => undefined);
    expect(await helper.exit()).toBe("SIGKILL");
    const magic = fs.readFileSync(device).toString("latin1", 0, 4);
    // Half of a page with the magic is all of it: then everything else is there.
    if (place.nth === 9) {
      expect(magic).toBe("QEVM");
      await verify({ image: device, workers: 1 });
    } else {
      expect(magic, "QEMU would take it").not.toBe("QEVM");
      await expect(
        restore({ image: device, workers: 1, connect: "unix:/nonexistent" }),
      ).rejects.toMatchObject({
        code: expect.stringMatching(/^(NOT_SEALED|NOT_AN_IMAGE)$/),
      });
    }
    await savedBefore(device, tinyMigration(), { format });
    await verify({ image: device, workers: 1 });
  });

  for (const directIo of ["on", "off"]) {
    test.each(TORN)(`over an image in place, --direct-io ${directIo}: %s`, async (_what, place) => {
      const device = loopDevice(scratch.file("disk"), 32 * MIB);
      await savedBefore(device, largeMigration(2, 12 * MIB));
      const old = await inspect({ image: device });

      const fault: FaultSpec = { ...place, when: "before", act: "tear" };
      const args = ["--direct-io", directIo, "--workers", "1"];
      const { helper, peer } = await listening(device, args, withFault(fault));
      await peer.play(largeMigration(2, 12 * MIB)).catch(() => undefined);
      expect(await helper.exit()).toBe("SIGKILL");

      const now = await inspect({ image: device }).catch((error: { code?: string }) => error.code);
      if (typeof now === "object" && now.sealed) {
        // Half of a superblock is all of it, as the rest is zero in both: then all that it speaks of must be there.
        expect(place).toMatchObject({ thread: "main", call: "write" });
        await verify({ image: device, workers: 1 });
        if (now.imageUuid === old.imageUuid) expect(place.nth).toBe(1);
      } else {
        await expect(
          restore({ image: device, workers: 1, connect: "unix:/nonexistent" }),
        ).rejects.toMatchObject({
          code: expect.stringMatching(/^(NOT_SEALED|NOT_AN_IMAGE|IMAGE_DAMAGED)$/),
        });
      }
      await savedBefore(device, tinyMigration());
      await verify({ image: device, workers: 1 });
    });
  }
});
