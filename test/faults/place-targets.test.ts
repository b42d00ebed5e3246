import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { convert, inspect, restore, verify } from "../../src/index.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { withFault } from "../support/fault-spec.ts";
import { describeWithLoopDevices, useMounts } from "../support/mounts.ts";
import { goodImage, savedBefore, useSaves } from "../support/save-under-test.ts";
import * as wire from "../support/stream-builder.ts";

/* Where `save --format mapped-ram` writes, what stands there meanwhile, and how much and how fast. */

const MIB = 2 ** 20;
const PAGE = 4096;
const { scratch, listening } = useSaves();
const mapped = (image: string, args: readonly string[] = [], fds: readonly number[] = []) =>
  listening(image, ["--format", "mapped-ram", ...args], { fds });

/** Neither we nor QEMU take what is there for an image. */
async function expectNoImage(image: string, base = 0): Promise<void> {
  expect(fs.readFileSync(image).toString("latin1", base, base + 4), "QEMU would take it").not.toBe("QEVM");
  const options = { image, offset: base };
  const codes = expect.stringMatching(/^(NOT_SEALED|NOT_AN_IMAGE|TARGET_BUSY)$/);
  await expect(verify(options)).rejects.toMatchObject({ code: codes });
  await expect(restore({ ...options, connect: "unix:/nonexistent" })).rejects.toMatchObject({ code: codes });
}

/** What is there was to become an image, and every reader knows. */
async function expectUnfinished(image: string, offset = 0): Promise<void> {
  const output = scratch.file("out");
  for (const read of [
    () => inspect({ image, offset }),
    () => verify({ image, offset }),
    () => restore({ image, offset, connect: "unix:/nonexistent" }),
    () => convert({ image, offset, output, format: "mapped-ram" }),
  ]) {
    const message = expect.stringContaining("never finished");
    await expect(read()).rejects.toMatchObject({ code: "NOT_SEALED", message });
  }
}

const whole = (image: string, offset = 0) => verify({ image, offset, workers: 1 });
const CHECKED = { checked: "checksums and structure" };

describe("until the seal there is no image", () => {
  test("under the temporary name of a path", async () => {
    const { helper, peer } = await mapped(scratch.file("vm.mr"), ["--hold"]);
    await peer.play(tinyMigration());
    await helper.waitEvent("drained");
    await expectNoImage(scratch.file(".vm.mr.multifd-partial"));
    helper.say("commit");
    await helper.success();
    expect(await whole(scratch.file("vm.mr"))).toMatchObject(CHECKED);
  });

  test("in a file by its descriptor, behind the manager's header, which stays", async () => {
    const header = Buffer.alloc(PAGE, "header of a manager ");
    await writeFile(scratch.file("raw"), Buffer.concat([header, await goodImage()]));
    const fd = fs.openSync(scratch.file("raw"), "r+");
    const run = await mapped("fd:3", ["--offset", "4096", "--hold"], [fd]);
    await run.peer.play(tinyMigration());
    await run.helper.waitEvent("drained");
    await expectNoImage(scratch.file("raw"), PAGE);
    run.helper.say("commit");
    await run.helper.success();
    fs.closeSync(fd);
    expect((await scratch.read("raw")).subarray(0, PAGE).equals(header)).toBe(true);
    expect(await whole(scratch.file("raw"), PAGE)).toMatchObject(CHECKED);
  });

  test("in a file by its descriptor, after a save that failed", async () => {
    for (const old of ["stream", "mapped-ram"] as const) {
      await savedBefore(scratch.file("raw"), tinyMigration(), { format: old });
      const fd = fs.openSync(scratch.file("raw"), "r+");
      const { helper, peer } = await mapped("fd:3", [], [fd]);
      await peer.play([tinyMigration()[0]?.subarray(0, 200) as Uint8Array]);
      expect(await helper.failure()).toMatchObject({ status: 3 });
      fs.closeSync(fd);
      await expectNoImage(scratch.file("raw"));
    }
  });

  test.each([
    ["before the footer is written", 2],
    ["before the magic is written", 3],
  ])(
    "in a file by its descriptor, killed %s: every reader says that it was never finished",
    async (_, nth) => {
      const header = Buffer.alloc(PAGE, "header of a manager ");
      await writeFile(scratch.file("raw"), header);
      const fd = fs.openSync(scratch.file("raw"), "r+");
      const fault = withFault(
        { thread: "main", call: "fdatasync", nth, when: "before", act: "kill" },
        { fds: [fd] },
      );
      const { helper, peer } = await listening("fd:3", ["--format", "mapped-ram", "--offset", "4096"], fault);
      await peer.play(tinyMigration());
      expect(await helper.exit()).toBe("SIGKILL");
      fs.closeSync(fd);
      await expectUnfinished(scratch.file("raw"), PAGE);
    },
  );

  test("but an earlier one survives when nobody comes, or somebody only looks", async () => {
    await writeFile(scratch.file("raw"), await goodImage());
    const fd = fs.openSync(scratch.file("raw"), "r+");
    const { helper, peer } = await mapped("fd:3", ["--connect-timeout", "0.5"], [fd]);
    (await peer.connect()).end();
    expect(await helper.failure()).toMatchObject({ code: "CONNECT_TIMEOUT" });
    fs.closeSync(fd);
    expect((await goodImage()).equals(await scratch.read("raw"))).toBe(true);
  });
});

describeWithLoopDevices("a block device", () => {
  const { loopDevice } = useMounts();

  test("holds an image behind an offset", async () => {
    const device = loopDevice(scratch.file("disk"), 32 * MIB);
    const { helper, peer } = await mapped(device, ["--offset", "1M"]);
    await peer.play(tinyMigration());
    await helper.success();
    expect(await whole(device, MIB)).toMatchObject(CHECKED);
    expect(await inspect({ image: device, offset: MIB })).toMatchObject({ sealed: true });
  });

  test("that is too small is no room, told before a page is written, and what is there is no image", async () => {
    const device = loopDevice(scratch.file("disk"), 8 * MIB);
    const { helper, peer } = await mapped(device);
    await peer.playWithoutEnd(largeMigration(2, 32 * MIB));
    expect(await helper.failure()).toMatchObject({
      ...{ status: 5, code: "NO_SPACE" },
      message: expect.stringContaining("larger"),
    });
    await expectNoImage(device);
  });

  test("that the device state does not fit on is no room", async () => {
    const device = loopDevice(scratch.file("disk"), 4 * MIB);
    const { helper, peer } = await mapped(device);
    await peer.play(tinyMigration(1, { devices: { big: Buffer.alloc(6 * MIB, 0x11) } }));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "NO_SPACE" });
    await expectNoImage(device);
  });

  test("on which a save was killed: every reader says that it was never finished", async () => {
    const device = loopDevice(scratch.file("disk"), 32 * MIB);
    const fault = withFault({ thread: "worker", call: "write", nth: 1, when: "before", act: "kill" });
    const { helper, peer } = await listening(device, ["--format", "mapped-ram"], fault);
    await peer.play(tinyMigration());
    expect(await helper.exit()).toBe("SIGKILL");
    await expectUnfinished(device);
  });
});

describe("limits", () => {
  test("--max-bytes ends pages that grow beyond it", async () => {
    const { helper, peer } = await mapped(scratch.file("vm.mr"), ["--max-bytes", "4M"]);
    await peer.playWithoutEnd(largeMigration(2, 16 * MIB));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "LIMIT_EXCEEDED" });
    expect(await scratch.names()).toEqual([]);
  });

  test("--max-bytes counts the device state, too", async () => {
    const { helper, peer } = await mapped(scratch.file("vm.mr"), ["--max-bytes", "4M"]);
    await peer.play(tinyMigration(1, { devices: { big: Buffer.alloc(6 * MIB, 0x11) } }));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "LIMIT_EXCEEDED" });
    expect(await scratch.names()).toEqual([]);
  });

  test("a file size limit of the process is no room", async () => {
    const shell = `ulimit -f 4096; exec "$0" "$@"`;
    const { helper, peer } = await listening(scratch.file("vm.mr"), ["--format", "mapped-ram"], { shell });
    await peer.playWithoutEnd(largeMigration(2, 16 * MIB));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "NO_SPACE" });
    expect(await scratch.names()).toEqual([]);
  });

  test("waiting for one's turn under --rate is no stall", async () => {
    const args = ["--rate", "2M", "--stall-timeout", "0.6"];
    const { helper, peer } = await mapped(scratch.file("vm.mr"), args);
    await peer.play(largeMigration(1, 6 * MIB));
    await helper.success();
    const progress = helper.events.filter(({ event }) => event === "progress");
    expect(progress.length).toBeGreaterThan(3);
  });
});

describe("channels that wait for each other", () => {
  const [main = wire.eofByte, first = wire.eofByte, second = wire.eofByte] = tinyMigration(2, {
    style: "10",
  });

  async function expectEnd(
    args: readonly string[],
    play: (run: Awaited<ReturnType<typeof mapped>>) => Promise<unknown>,
    end: object,
  ): Promise<void> {
    const old = await goodImage();
    await writeFile(scratch.file("vm.mr"), old);
    const run = await mapped(scratch.file("vm.mr"), args);
    await play(run);
    expect(await run.helper.failure()).toMatchObject(end);
    expect(await scratch.names()).toEqual(["vm.mr"]);
    expect(old.equals(await scratch.read("vm.mr"))).toBe(true);
  }

  test("one that ends early is told, with its barrier", () =>
    // Its first SYNC has passed.
    expectEnd([], ({ peer }) => peer.play([main, first.subarray(0, 64 + 1344), second]), {
      ...{ status: 3, code: "STREAM_INCOMPLETE" },
      message: expect.stringMatching(/channel 0 ended at barrier 1 of at least 2/),
    }));

  test("one that stops between two barriers: --stall-timeout ends it", () =>
    expectEnd(
      ["--stall-timeout", "0.6"],
      ({ peer }) => peer.playWithoutEnd([main, first.subarray(0, 64 + 1344), second]),
      { status: 6, code: "STALLED" },
    ));

  test("one that comes when RAM is on its way", () =>
    expectEnd(
      [],
      async ({ helper, peer }) => {
        // Main says no more behind its first barrier.
        const start = main.indexOf(wire.flushWord) + 8 + 8 + 5;
        await peer.playWithoutEnd([main.subarray(0, start), first, second.subarray(0, 64 + 1344)]);
        await helper.waitEvent("progress", ({ bytes }) => Number(bytes) > 2 * 1344);
        await peer.playWithoutEnd([wire.initPacket(2)]);
      },
      { status: 3, code: "CHANNEL_SET" },
    ));

  test("one that never comes, of --channels", () =>
    expectEnd(
      ["--channels", "2", "--connect-timeout", "2"],
      ({ peer }) => peer.playWithoutEnd([main, first]),
      { status: 6, code: "CONNECT_TIMEOUT", details: { main: true } },
    ));

  test("all of them, and main never comes", () =>
    expectEnd(["--connect-timeout", "2"], ({ peer }) => peer.playWithoutEnd([first, second]), {
      ...{ status: 6, code: "CONNECT_TIMEOUT" },
      details: { main: false, channels: 2 },
    }));

  test("a stranger who says nothing", () =>
    expectEnd(
      ["--connect-timeout", "2"],
      async ({ peer }) => {
        await peer.connect();
        await peer.play([main, first, second]);
      },
      { status: 6, code: "CONNECT_TIMEOUT" },
    ));

  test("two mains at once, of which one has less RAM", async () => {
    const [other = wire.eofByte] = tinyMigration(2, { style: "10", blocks: [{ name: "mem", bytes: PAGE }] });
    for (let n = 0; n < 3; n++) {
      await expectEnd([], ({ peer }) => peer.playWithoutEnd([main, other]), {
        ...{ status: 3, code: "CHANNEL_SET" },
        details: { channel: "main" },
      });
    }
  });

  test("the manager's signal ends it while all wait", () =>
    expectEnd(
      [],
      async ({ helper, peer }) => {
        await peer.playWithoutEnd([main, first, second.subarray(0, 64)]);
        await helper.waitEvent("channel", ({ channel }) => channel === 1);
        helper.signal("SIGTERM");
      },
      { status: 143, code: "CANCELLED" },
    ));

  test("connections that only look harm nothing, before and in the middle", async () => {
    const { helper, peer } = await mapped(scratch.file("vm.mr"), ["--channels", "2"]);
    for (let n = 0; n < 3; n++) (await peer.connect()).end();
    const mainSocket = await peer.connect();
    mainSocket.write(main.subarray(0, 60));
    (await peer.connect()).destroy();
    await helper.waitEvent("channel");
    await peer.play([first, second]);
    mainSocket.end(main.subarray(60));
    await helper.success();
    expect(await whole(scratch.file("vm.mr"))).toMatchObject(CHECKED);
  });
});
