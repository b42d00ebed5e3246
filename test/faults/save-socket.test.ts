import fs from "node:fs";
import { symlink, writeFile } from "node:fs/promises";
import net from "node:net";
import { expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { useRawListeners } from "../support/raw-listener.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, listening, argsOf } = useSaves();
const rawListener = useRawListeners();
const image = (): string => scratch.file("vm.mfd");

test("the unix socket is private and gone at the end", async () => {
  const { helper, peer, address } = await listening(image());
  expect(address).toBe(`unix:${scratch.file("s")}`);
  expect(await scratch.mode("s")).toBe(0o600);
  await peer.play(tinyMigration());
  await helper.success();
  expect(await scratch.names()).toEqual(["vm.mfd"]);
});

test("a socket file that nobody listens on any more is replaced", async () => {
  const dead = await listening(image());
  await dead.helper.kill();
  expect(await scratch.names()).toContain("s");
  const { helper, peer } = await listening(image());
  await peer.play(tinyMigration());
  await helper.success();
  expect(await scratch.names()).toEqual(["vm.mfd"]);
});

test("a socket that somebody listens on is refused and goes on working", async () => {
  const first = await listening(image());
  const second = start(argsOf(scratch.file("other.mfd")));
  expect(await second.failure()).toMatchObject({
    status: 5,
    code: "LISTEN_FAILED",
    details: { errno: "EADDRINUSE" },
  });
  await first.peer.play(tinyMigration());
  await first.helper.success();
  expect(await scratch.names()).toEqual(["vm.mfd"]);
});

test("a regular file where the socket should be stays", async () => {
  await writeFile(scratch.file("s"), "somebody's file");
  expect(await start(argsOf(image())).failure()).toMatchObject({
    status: 5,
    code: "LISTEN_FAILED",
    message: expect.stringContaining("not a socket"),
  });
  expect((await scratch.read("s")).toString()).toBe("somebody's file");
  expect(await scratch.names()).toEqual(["s"]);
});

test("a link that leads to itself where the socket should be stays", async () => {
  await symlink("s", scratch.file("s"));
  const helper = start(argsOf(image()));
  expect(await helper.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
  expect(await scratch.names()).toEqual(["s"]);
});

test("a directory that does not exist", async () => {
  const helper = start(argsOf(image(), ["--listen", `unix:${scratch.file("no/s")}`]));
  expect(await helper.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
  expect(await scratch.names()).toEqual([]);
});

test("an address that cannot be leaves no trace of an image", async () => {
  for (const address of [
    "unix:",
    `unix:/${"x".repeat(107)}`,
    "tcp:127.0.0.1:99999",
    "tcp:nohost",
    "exec:cat",
  ]) {
    const helper = start(argsOf(image(), ["--listen", address]));
    expect(await helper.failure()).toMatchObject({ status: 2, code: "USAGE" });
  }
  expect(await scratch.names()).toEqual([]);
});

test.each(["127.0.0.1", "[::1]", "localhost"])("tcp on %s takes a free port and names it", async (host) => {
  if (host === "[::1]" && !hasIpv6()) return;
  const { helper, address } = await listening(image(), ["--listen", `tcp:${host}:0`]);
  const port = Number(/:(\d+)$/.exec(address)?.[1]);
  expect(port).toBeGreaterThan(0);
  await new FakePeer(address).play(tinyMigration());
  await helper.success();
  await verify({ image: image(), workers: 1 });
});

test("tcp on a port that is taken", async () => {
  const first = await listening(image(), ["--listen", "tcp:127.0.0.1:0"]);
  const second = start(argsOf(scratch.file("other"), ["--listen", first.address]));
  expect(await second.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
});

test("tcp beyond this machine needs --allow-remote", async () => {
  const refused = start(argsOf(image(), ["--listen", "tcp:0.0.0.0:0"]));
  expect(await refused.failure()).toMatchObject({
    status: 2,
    code: "USAGE",
    message: expect.stringContaining("--allow-remote"),
  });
  const { helper, address } = await listening(image(), ["--listen", "tcp:0.0.0.0:0", "--allow-remote"]);
  await new FakePeer(address.replace("0.0.0.0", "127.0.0.1")).play(tinyMigration());
  await helper.success();
});

test("an inherited listening socket, with the manager's socket file left alone", async () => {
  const fd = rawListener(scratch.file("managers"));
  const { helper, address } = await listening(image(), ["--listen", "fd:3"], { fds: [fd] });
  expect(address).toBe("fd:3");
  await new FakePeer(`unix:${scratch.file("managers")}`).play(tinyMigration());
  await helper.success();
  expect(await scratch.names()).toEqual(["managers", "vm.mfd"]);
});

test.each([4, 64, 255])(
  "an inherited socket on which main and %i channels wait already",
  async (channels) => {
    const fd = rawListener(scratch.file("managers"));
    // Small enough for the sockets' buffers: all of it is written, and the peer gone, before the helper starts.
    await new FakePeer(`unix:${scratch.file("managers")}`).play(tinyMigration(channels, { style: "10" }));
    const helper = start(argsOf(image(), ["--listen", "fd:3"]), { fds: [fd] });
    expect(await helper.success()).toMatchObject({ image: { multifdChannels: channels } });
    await verify({ image: image(), workers: 2 });
  },
);

test("an inherited tcp socket", async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as net.AddressInfo;
  const handle = (server as unknown as { _handle: { fd: number } })._handle;
  // A number of its own: the server is closed before the helper listens, so that it takes no connection.
  const { helper } = await listening(image(), ["--listen", "fd:3"], { fds: [handle.fd] });
  server.close();
  await new FakePeer(`tcp:127.0.0.1:${port}`).play(tinyMigration());
  await helper.success();
});

test("an inherited descriptor that is no listening socket, or not open", async () => {
  const fd = fs.openSync(scratch.file("file"), "w+");
  const helper = start(argsOf(image(), ["--listen", "fd:3"]), { fds: [fd] });
  expect(await helper.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
  fs.closeSync(fd);
  const closed = start(argsOf(image(), ["--listen", "fd:77"]));
  expect(await closed.failure()).toMatchObject({ status: 5, code: "LISTEN_FAILED" });
  expect(await scratch.names()).toEqual(["file"]);
});

function hasIpv6(): boolean {
  return fs.existsSync("/proc/net/if_inet6") && fs.readFileSync("/proc/net/if_inet6", "utf8").includes(" lo");
}
