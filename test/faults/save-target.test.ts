import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { mkdir, rename, symlink, truncate, writeFile } from "node:fs/promises";
import net from "node:net";
import { describe, expect, test } from "vitest";
import { inspect, verify } from "../../src/index.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { goodImage, useSaves } from "../support/save-under-test.ts";

const { scratch, start, listening, argsOf } = useSaves();
const IMAGE = "vm.mfd";
const PARTIAL = ".vm.mfd.multifd-partial";

/** A save of the tiny migration that must succeed. */
async function saveTo(
  image: string,
  args: readonly string[] = [],
  fds: readonly number[] = [],
): Promise<void> {
  const { helper, peer } = await listening(image, args, { fds });
  await peer.play(tinyMigration());
  await helper.success();
}

async function expectWhole(image: string, offset = 0): Promise<void> {
  expect(await verify({ image, offset, workers: 1 })).toMatchObject({ checked: "checksums and structure" });
}

async function refusal(image: string, args: readonly string[] = [], fds: readonly number[] = []) {
  return await start(argsOf(image, args), { fds }).failure();
}

/** A descriptor of this process; to be passed on and closed. */
function open(name: string, flags: number): number {
  return fs.openSync(scratch.file(name), flags, 0o600);
}

const { O_RDWR, O_RDONLY, O_WRONLY, O_CREAT, O_APPEND } = fs.constants;

describe("a path", () => {
  test("keeps the earlier image until the new one takes its name", async () => {
    const old = await goodImage();
    await writeFile(scratch.file(IMAGE), old);
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--hold"]);
    await peer.play(tinyMigration());
    await helper.waitEvent("drained");
    expect(await scratch.names()).toEqual([PARTIAL, IMAGE].sort());
    expect(await scratch.mode(PARTIAL)).toBe(0o600);
    expect(old.equals(await scratch.read(IMAGE))).toBe(true);
    await expect(inspect({ image: scratch.file(PARTIAL) })).resolves.toMatchObject({ sealed: false });

    helper.say("commit");
    const { image } = await helper.success();
    expect(await scratch.names()).toEqual([IMAGE]);
    expect(await inspect({ image: scratch.file(IMAGE) })).toMatchObject({
      imageUuid: (image as { uuid: string }).uuid,
    });
    await expectWhole(scratch.file(IMAGE));
  });

  test.each([0o000, 0o077])("has mode 0600 whatever the umask: %o", async (umask) => {
    const { helper, peer } = await listening(scratch.file(IMAGE), [], { umask });
    expect(await scratch.mode("s")).toBe(0o600);
    await peer.play(tinyMigration());
    await helper.success();
    expect(await scratch.mode(IMAGE)).toBe(0o600);
  });

  test("through symbolic links replaces what they lead to, not the links", async () => {
    await mkdir(scratch.file("store"));
    await writeFile(scratch.file("store/real"), "an older file");
    await symlink("store/real", scratch.file("inner"));
    await symlink("inner", scratch.file("outer"));
    await saveTo(scratch.file("outer"));
    expect(fs.readlinkSync(scratch.file("outer"))).toBe("inner");
    expect(fs.lstatSync(scratch.file("store/real")).isFile()).toBe(true);
    await expectWhole(scratch.file("store/real"));
  });

  test("may be a link that leads nowhere yet", async () => {
    await symlink("later", scratch.file("link"));
    await saveTo(scratch.file("link"));
    await expectWhole(scratch.file("later"));
  });

  test("is refused where links go round", async () => {
    await symlink("b", scratch.file("a"));
    await symlink("a", scratch.file("b"));
    expect(await refusal(scratch.file("a"))).toMatchObject({ status: 5, code: "TARGET_REFUSED" });
  });

  test("is refused where no image can be", async () => {
    await mkdir(scratch.file("directory"));
    execFileSync("mkfifo", [scratch.file("fifo")]);
    const server = net.createServer().listen(scratch.file("socket"));
    const what = {
      directory: "a directory",
      fifo: "a FIFO",
      socket: "a socket",
      "no/such/file": "does not exist",
    };
    for (const [name, reason] of Object.entries(what)) {
      expect(await refusal(scratch.file(name))).toMatchObject({
        status: 5,
        code: "TARGET_REFUSED",
        message: expect.stringContaining(reason),
      });
    }
    expect(await refusal("/dev/null")).toMatchObject({ status: 5, code: "TARGET_REFUSED" });
    expect(await refusal(scratch.file("x".repeat(250)))).toMatchObject({ status: 5, code: "TARGET_REFUSED" });
    await new Promise((resolve) => server.close(resolve));
    expect(await scratch.names()).toEqual(["directory", "fifo"]);
  });

  test("takes one save at a time", async () => {
    const first = await listening(scratch.file(IMAGE));
    expect(await refusal(scratch.file(IMAGE), ["--listen", `unix:${scratch.file("s2")}`])).toMatchObject({
      status: 5,
      code: "TARGET_BUSY",
    });
    await first.peer.play(tinyMigration());
    await first.helper.success();
    await expectWhole(scratch.file(IMAGE));
    expect(await scratch.names()).toEqual([IMAGE]);
  });

  test("is given to exactly one of several saves that start at once, leftover or not", async () => {
    for (const leftover of [false, true]) {
      if (leftover) await writeFile(scratch.file(PARTIAL), "of a helper that was killed");
      const helpers = ["s1", "s2", "s3"].map((name) =>
        start(
          argsOf(scratch.file(IMAGE), ["--listen", `unix:${scratch.file(name)}`, "--connect-timeout", "1.5"]),
        ),
      );
      const ends = await Promise.all(helpers.map((helper) => helper.failure()));
      expect(ends.map(({ code }) => code).sort()).toEqual(["CONNECT_TIMEOUT", "TARGET_BUSY", "TARGET_BUSY"]);
      expect(await scratch.names()).toEqual([]);
    }
  });

  test("is cleaned of what a killed helper left by the next save", async () => {
    const old = await goodImage();
    await writeFile(scratch.file(IMAGE), old);
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--rate", "1M"]);
    await peer.play(largeMigration(1, 8 * 2 ** 20));
    await helper.waitEvent("progress");
    await helper.kill();
    expect(await scratch.names()).toEqual([PARTIAL, "s", IMAGE].sort());
    expect(old.equals(await scratch.read(IMAGE))).toBe(true);
    await saveTo(scratch.file(IMAGE));
    expect(await scratch.names()).toEqual([IMAGE]);
    await expectWhole(scratch.file(IMAGE));
  });

  test("that became a directory meanwhile ends in an error and leaves nothing", async () => {
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--hold"]);
    await peer.play(tinyMigration());
    await helper.waitEvent("drained");
    await mkdir(scratch.file(IMAGE));
    helper.say("commit");
    expect(await helper.failure()).toMatchObject({ status: 5, code: "IO" });
    expect(await scratch.names()).toEqual([IMAGE]);
  });

  test("in a directory that was moved away meanwhile ends in an error", async () => {
    await mkdir(scratch.file("d"));
    const { helper, peer } = await listening(scratch.file(`d/${IMAGE}`), ["--hold"]);
    await peer.play(tinyMigration());
    await helper.waitEvent("drained");
    await rename(scratch.file("d"), scratch.file("elsewhere"));
    helper.say("commit");
    expect((await helper.failure()).status).toBe(5);
  });
});

describe("a target written in place", () => {
  test("fd:N: an inherited regular file", async () => {
    const fd = open("raw", O_RDWR | O_CREAT);
    await truncate(scratch.file("raw"), 64 * 2 ** 20);
    await saveTo("fd:3", [], [fd]);
    fs.closeSync(fd);
    expect(fs.statSync(scratch.file("raw")).size).toBe(64 * 2 ** 20);
    await expectWhole(scratch.file("raw"));
  });

  test("fd:N that may only be written", async () => {
    const fd = open("raw", O_WRONLY | O_CREAT);
    await saveTo("fd:3", [], [fd]);
    fs.closeSync(fd);
    await expectWhole(scratch.file("raw"));
  });

  test("fd:N is refused read-only, with O_APPEND, as a directory, and when it is not open", async () => {
    await writeFile(scratch.file("raw"), "as it was");
    const cases: [number, string][] = [
      [open("raw", O_RDONLY), "reading only"],
      [open("raw", O_RDWR | O_APPEND), "O_APPEND"],
      [open(".", O_RDONLY), "reading only"],
      [fs.openSync("/dev/null", O_RDWR), "a character device"],
    ];
    for (const [fd, reason] of cases) {
      expect(await refusal("fd:3", [], [fd])).toMatchObject({
        status: 5,
        code: "TARGET_REFUSED",
        message: expect.stringContaining(reason),
      });
      fs.closeSync(fd);
    }
    expect(await refusal("fd:99")).toMatchObject({ status: 5, code: "TARGET_REFUSED" });
    expect((await scratch.read("raw")).toString()).toBe("as it was");
  });

  test("a mere look at the socket costs an earlier image nothing", async () => {
    await writeFile(scratch.file("raw"), Buffer.concat([Buffer.alloc(4096), await goodImage()]));
    const before = await scratch.read("raw");
    const args = ["--offset", "4096", "--connect-timeout", "2"];
    const { helper, peer } = await listening(scratch.file("raw"), args);
    (await peer.connect()).end();
    expect(await helper.failure()).toMatchObject({ status: 6, code: "CONNECT_TIMEOUT" });
    expect((await scratch.read("raw")).equals(before)).toBe(true);
  });

  test("--offset: the manager's header stays, the image starts at the next 4096", async () => {
    const header = Buffer.alloc(5000, "header of a manager ");
    await writeFile(scratch.file("raw"), header);
    await truncate(scratch.file("raw"), 32 * 2 ** 20);
    fs.chmodSync(scratch.file("raw"), 0o640);
    await saveTo(scratch.file("raw"), ["--offset", "5000"]);
    const bytes = await scratch.read("raw");
    expect(bytes.subarray(0, 5000).equals(header)).toBe(true);
    expect(bytes.subarray(5000, 8192).every((byte) => byte === 0)).toBe(true);
    expect(bytes.length).toBe(32 * 2 ** 20);
    expect(await scratch.mode("raw")).toBe(0o640);
    expect(await inspect({ image: scratch.file("raw"), offset: 5000 })).toMatchObject({
      sealed: true,
      base: 8192,
    });
    await expectWhole(scratch.file("raw"), 5000);
  });

  test("--offset on a file that is not there yet: created 0600, ended at the image's end", async () => {
    const { helper, peer } = await listening(scratch.file("raw"), ["--offset", "1M"], { umask: 0 });
    await peer.play(tinyMigration());
    const { image } = await helper.success();
    expect(await scratch.mode("raw")).toBe(0o600);
    expect(fs.statSync(scratch.file("raw")).size).toBe(2 ** 20 + (image as { bytes: number }).bytes);
    await expectWhole(scratch.file("raw"), 2 ** 20);
  });

  test("--offset on a file that is not there yet: a failed save removes it", async () => {
    const { helper, peer } = await listening(scratch.file("raw"), ["--offset", "1M"]);
    await peer.play([tinyMigration()[0]?.subarray(0, 200) as Uint8Array]);
    expect((await helper.failure()).status).toBe(3);
    expect(await scratch.names()).toEqual([]);
  });

  test("an earlier image survives a save to which nobody connects", async () => {
    const old = await goodImage();
    await writeFile(scratch.file("raw"), old);
    const fd = open("raw", O_RDWR);
    const { helper } = await listening("fd:3", ["--connect-timeout", "0.3"], { fds: [fd] });
    expect(await helper.failure()).toMatchObject({ code: "CONNECT_TIMEOUT" });
    fs.closeSync(fd);
    expect(old.equals(await scratch.read("raw"))).toBe(true);
  });

  test("an earlier image is no image any more once a new save has begun and failed", async () => {
    await writeFile(scratch.file("raw"), await goodImage());
    const fd = open("raw", O_RDWR);
    const { helper, peer } = await listening("fd:3", [], { fds: [fd] });
    await peer.play([tinyMigration()[0]?.subarray(0, 200) as Uint8Array]);
    expect((await helper.failure()).status).toBe(3);
    fs.closeSync(fd);
    expect(await inspect({ image: scratch.file("raw") })).toMatchObject({ sealed: false });
    await expect(verify({ image: scratch.file("raw") })).rejects.toMatchObject({ code: "NOT_SEALED" });
  });

  test("takes one save at a time, by whatever name", async () => {
    await writeFile(scratch.file("raw"), "");
    const fd = open("raw", O_RDWR);
    const first = await listening("fd:3", [], { fds: [fd] });
    const second = await refusal(scratch.file("raw"), [
      ...["--offset", "4096"],
      ...["--listen", `unix:${scratch.file("s2")}`],
    ]);
    expect(second).toMatchObject({ status: 5, code: "TARGET_BUSY" });
    await first.peer.play(tinyMigration());
    await first.helper.success();
    fs.closeSync(fd);
    await expectWhole(scratch.file("raw"));
  });
});
