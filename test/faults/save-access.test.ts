import fs from "node:fs";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { beforeEach, expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { describeAsOtherUser, describeAsRoot, NOBODY, STRANGER } from "../support/other-user.ts";
import { useRawListeners } from "../support/raw-listener.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, listening, argsOf } = useSaves();
const rawListener = useRawListeners();
const image = (): string => scratch.file("vm.mfd");
const allow = (...uids: readonly number[]): string[] => uids.flatMap((uid) => ["--allow-uid", `${uid}`]);

/** Whether the helper lets this user connect: the kernel says no, or the helper closes, or it stays. */
async function attempt(address: string, uid: number): Promise<"stays" | "closed" | string> {
  let socket: net.Socket;
  try {
    socket = await new FakePeer(address, uid).connect();
  } catch (error) {
    return String((error as { code?: string }).code);
  }
  const closed = new Promise<"closed">((resolve) => socket.once("close", () => resolve("closed")));
  socket.once("end", () => socket.end());
  // A stranger is let down gently, a second after the last one.
  const fate = await Promise.race([closed, sleep(3000, "stays" as const)]);
  socket.destroy();
  return fate;
}

describeAsRoot("who may connect", () => {
  beforeEach(() => fs.chmodSync(scratch.directory, 0o755));

  test("nobody but the helper's user and root", async () => {
    const { helper, peer, address } = await listening(image());
    expect(await attempt(address, NOBODY)).toBe("EACCES");
    await peer.play(tinyMigration());
    await helper.success();
  });

  test("on an inherited socket that lets everybody in: the same, by the peer's credentials", async () => {
    const fd = rawListener(scratch.file("managers"));
    fs.chmodSync(scratch.file("managers"), 0o777);
    const { helper } = await listening(image(), ["--listen", "fd:3"], { fds: [fd] });
    const address = `unix:${scratch.file("managers")}`;
    for (const uid of [NOBODY, NOBODY, STRANGER]) expect(await attempt(address, uid)).toBe("closed");
    await new FakePeer(address).play(tinyMigration());
    expect(await helper.success()).toMatchObject({ image: { multifdChannels: 2 } });
    const told = helper.stderr.trimEnd().split("\n");
    expect(told.map((line) => JSON.parse(line))).toMatchObject([{ uid: NOBODY }, { uid: STRANGER }]);
    await verify({ image: image(), workers: 1 });
  });

  test("a QEMU that was refused is named when the others do not come", async () => {
    const fd = rawListener(scratch.file("managers"));
    fs.chmodSync(scratch.file("managers"), 0o777);
    const args = ["--listen", "fd:3", "--connect-timeout", "2"];
    const { helper } = await listening(image(), args, { fds: [fd] });
    await new FakePeer(`unix:${scratch.file("managers")}`, NOBODY).play(tinyMigration());
    expect(await helper.failure()).toMatchObject({
      status: 6,
      code: "CONNECT_TIMEOUT",
      message: expect.stringContaining("--allow-uid"),
      details: { refused: 3 },
    });
    expect(await scratch.names()).toEqual(["managers"]);
  });

  test("--allow-uid gives the socket to one more user, and to nobody else", async () => {
    const { helper, address } = await listening(image(), allow(NOBODY));
    expect(fs.statSync(scratch.file("s"))).toMatchObject({ uid: NOBODY, mode: 0o140600 });
    expect(await attempt(address, STRANGER)).toBe("EACCES");
    await new FakePeer(address, NOBODY).play(tinyMigration());
    await helper.success();
    expect(fs.statSync(image())).toMatchObject({ uid: 0, mode: 0o100600 });
    expect(await scratch.names()).toEqual(["vm.mfd"]);
  });

  test("several --allow-uid share the socket, and their credentials tell them from others", async () => {
    const { helper, address } = await listening(image(), allow(NOBODY, STRANGER, 0));
    expect(await scratch.mode("s")).toBe(0o666);
    expect(await attempt(address, 12345)).toBe("closed");
    const [main = Buffer.alloc(0), ...channels] = tinyMigration();
    const second = await new FakePeer(address, STRANGER).connect();
    await new FakePeer(address, NOBODY).play([...channels.slice(1), main]);
    second.end(channels[0] as Buffer);
    await helper.success();
  });

  test("a directory that the allowed user cannot pass is worth a warning", async () => {
    fs.chmodSync(scratch.directory, 0o700);
    const { helper, peer } = await listening(image(), allow(NOBODY));
    await peer.play(tinyMigration());
    await helper.success();
    expect(helper.stderr).toContain(`uid ${NOBODY} may not be able to reach the socket`);
  });

  test("a link that is put in the place of the temporary image is not followed", async () => {
    fs.writeFileSync(scratch.file("victim"), "precious");
    fs.symlinkSync("victim", scratch.file(".vm.mfd.multifd-partial"));
    expect(await start(argsOf(image())).failure()).toMatchObject({ status: 5 });
    expect((await scratch.read("victim")).toString()).toBe("precious");
  });
});

describeAsRoot("a directory that others can write to", () => {
  beforeEach(() => {
    fs.mkdirSync(scratch.file("d"));
    fs.chmodSync(scratch.file("d"), 0o1777);
  });
  const listen = (): string[] => ["--listen", `unix:${scratch.file("d/s")}`];
  const names = (): string[] => fs.readdirSync(scratch.file("d")).sort();

  test("holds the socket in a private directory; QEMU gets there by PATH, too", async () => {
    for (const viaLink of [false, true]) {
      const { helper, address } = await listening(image(), listen());
      const socket = address.slice("unix:".length);
      expect(path.dirname(path.dirname(socket))).toBe(scratch.file("d"));
      expect(fs.statSync(path.dirname(socket)).mode & 0o7777).toBe(0o700);
      expect(fs.statSync(socket).mode & 0o7777).toBe(0o600);
      expect(fs.realpathSync(scratch.file("d/s"))).toBe(socket);
      await new FakePeer(viaLink ? `unix:${scratch.file("d/s")}` : address).play(tinyMigration());
      await helper.success();
      expect(names()).toEqual([]);
    }
  });

  test("and in which names can be taken away: the socket goes among the temporary files", async () => {
    fs.chmodSync(scratch.file("d"), 0o777);
    const { helper, peer, address } = await listening(image(), listen());
    const socket = address.slice("unix:".length);
    expect(path.dirname(path.dirname(socket))).toBe(os.tmpdir());
    expect(helper.stderr).toContain("others can replace");
    expect(fs.realpathSync(scratch.file("d/s"))).toBe(socket);
    await peer.play(tinyMigration());
    await helper.success();
    expect(names()).toEqual([]);
    expect(fs.existsSync(path.dirname(socket))).toBe(false);
  });

  test("counts as such when it is another user's", async () => {
    fs.chmodSync(scratch.file("d"), 0o755);
    fs.chownSync(scratch.file("d"), STRANGER, STRANGER);
    const { helper, peer, address } = await listening(image(), listen());
    expect(address).not.toBe(`unix:${scratch.file("d/s")}`);
    await peer.play(tinyMigration());
    await helper.success();
  });

  test("with --allow-uid: the private directory can be passed, and only by its name", async () => {
    fs.chmodSync(scratch.directory, 0o755);
    const { helper, address } = await listening(image(), [...listen(), ...allow(NOBODY)]);
    expect(fs.statSync(path.dirname(address.slice("unix:".length))).mode & 0o7777).toBe(0o711);
    expect(await attempt(address, STRANGER)).toBe("EACCES");
    await new FakePeer(address, NOBODY).play(tinyMigration());
    await helper.success();
    expect(names()).toEqual([]);
  });

  test("what a killed helper left there is cleaned up by the next", async () => {
    const dead = await listening(image(), listen());
    await dead.helper.kill();
    expect(names()).toHaveLength(2);
    const { helper, peer } = await listening(image(), listen());
    await peer.play(tinyMigration());
    await helper.success();
    expect(names()).toEqual([]);
  });

  test("a second helper at the same PATH is refused, and the first goes on", async () => {
    const first = await listening(image(), listen());
    const second = start(argsOf(scratch.file("other"), listen()));
    expect(await second.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
    await first.peer.play(tinyMigration());
    await first.helper.success();
    expect(names()).toEqual([]);
  });

  test("a link that somebody else left at PATH is refused and stays, with what it leads to", async () => {
    const treasure = fs.mkdtempSync(scratch.file("d/.multifd-"));
    fs.writeFileSync(path.join(treasure, "s"), "not a socket");
    fs.symlinkSync(path.join(treasure, "s"), scratch.file("d/s"));
    fs.lchownSync(scratch.file("d/s"), STRANGER, STRANGER);
    const helper = start(argsOf(image(), listen()));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
    expect(names()).toEqual([path.basename(treasure), "s"]);
    expect(fs.readFileSync(path.join(treasure, "s"), "utf8")).toBe("not a socket");
  });

  test("a path that gets too long by it is refused, and leaves nothing behind", async () => {
    const deep = scratch.file(`d/${"x".repeat(100 - scratch.file("d/").length)}`);
    fs.mkdirSync(deep);
    fs.chmodSync(deep, 0o1777);
    const helper = start(argsOf(image(), ["--listen", `unix:${deep}/s`]));
    expect(await helper.failure()).toMatchObject({ status: 2, code: "USAGE" });
    expect(fs.readdirSync(deep)).toEqual([]);
    expect(await scratch.names()).toEqual(["d"]);
  });
});

describeAsOtherUser("a helper without root's rights", () => {
  beforeEach(() => fs.chmodSync(scratch.directory, 0o1777));
  const asNobody = { uid: NOBODY };

  test("lets its own user and root in, from the private directory", async () => {
    for (const uid of [NOBODY, 0]) {
      const { helper, address } = await listening(image(), [], asNobody);
      expect(await attempt(address, STRANGER)).toBe("EACCES");
      await new FakePeer(address, uid).play(tinyMigration());
      await helper.success();
      expect(fs.statSync(image())).toMatchObject({ uid: NOBODY, mode: 0o100600 });
    }
    expect(await scratch.names()).toEqual(["vm.mfd"]);
  });

  test("cannot give the socket away with --allow-uid: it opens it, and looks at who comes", async () => {
    const { helper, address } = await listening(image(), allow(STRANGER), asNobody);
    expect(fs.statSync(address.slice("unix:".length)).mode & 0o777).toBe(0o666);
    expect(await attempt(address, 12345)).toBe("closed");
    await new FakePeer(address, STRANGER).play(tinyMigration());
    await helper.success();
  });
});

test("--allow-remote warns; without it an inherited tcp socket beyond this machine is refused, too", async () => {
  const server = net.createServer().listen(0, "0.0.0.0");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
  const refused = start(argsOf(image(), ["--listen", "fd:3"]), { fds: [fd] });
  expect(await refused.failure()).toMatchObject({ status: 2, code: "USAGE" });
  const { helper } = await listening(image(), ["--listen", "fd:3", "--allow-remote"], { fds: [fd] });
  server.close();
  await new FakePeer(`tcp:127.0.0.1:${port}`).play(tinyMigration());
  await helper.success();
  expect(helper.stderr).toContain("neither authenticated nor encrypted");
});

test.each([
  [["--listen", "tcp:127.0.0.1:0", "--allow-uid", "1"], "needs a unix socket"],
  [["--allow-uid", "4294967295"], "0 to 4294967294"],
])("%j makes no sense", async (args, told) => {
  expect(await start(argsOf(image(), args)).failure()).toMatchObject({
    status: 2,
    code: "USAGE",
    message: expect.stringContaining(told),
  });
  expect(await scratch.names()).toEqual([]);
});
