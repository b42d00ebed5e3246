import net from "node:net";
import { expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { useRawListeners } from "../support/raw-listener.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start } = useSaves();
const rawListener = useRawListeners();

/** The manager's socket, in whose backlog a migration was left that failed half-way. */
async function withLeftovers(): Promise<{ fd: number; peer: FakePeer }> {
  const path = scratch.file("managers");
  const fd = rawListener(path);
  const peer = new FakePeer(`unix:${path}`);
  const [main, first] = tinyMigration();
  await peer.play([main?.subarray(0, 100), first?.subarray(0, 2000)] as Buffer[]);
  // One that hangs: QEMU does not know yet that its helper is gone.
  await peer.connect();
  return { fd, peer: new FakePeer(`unix:${path}`) };
}

function save(fd: number, ...args: readonly string[]) {
  const all = ["save", scratch.file("vm.mfd"), "--listen", "fd:3", "--channels", "2", "--json", ...args];
  return start(all, { fds: [fd] });
}

test("what a failed migration left on the manager's socket makes the next save fail", async () => {
  const { fd, peer } = await withLeftovers();
  const helper = save(fd);
  await helper.waitEvent("listening");
  await peer.play(tinyMigration()).catch(() => undefined);
  expect(await helper.failure()).toMatchObject({ status: 3 });
});

test("--discard-backlog closes it first, and only that", async () => {
  const { fd, peer } = await withLeftovers();
  const helper = save(fd, "--discard-backlog");
  await helper.waitEvent("listening");
  await peer.play(tinyMigration());
  await helper.success();
  await verify({ image: scratch.file("vm.mfd"), workers: 1 });
});

test("--discard-backlog tells a QEMU that still waits", async () => {
  const path = scratch.file("managers");
  const fd = rawListener(path);
  const waiting = net.connect({ path });
  const closed = new Promise((resolve) => waiting.once("close", resolve));
  waiting.on("error", () => undefined).resume();
  const helper = save(fd, "--discard-backlog");
  await helper.waitEvent("listening");
  await closed;
  await new FakePeer(`unix:${path}`).play(tinyMigration());
  await helper.success();
});
