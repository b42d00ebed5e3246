import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import { expect, test } from "vitest";
import { clearPath } from "../../src/channels/stale-socket.ts";
import { tryLock } from "../../src/io/libc.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();

async function serve(file: string): Promise<net.Server> {
  const server = net.createServer().listen(file);
  await once(server, "listening");
  return server;
}

/** The socket file of a process that is dead. */
async function leaveSocket(file: string): Promise<void> {
  const server = await serve(`${file}.before`);
  fs.renameSync(`${file}.before`, file);
  server.close();
  await once(server, "close");
}

test("of two that find the same leftover, the second does not remove the first's new socket", async () => {
  const file = scratch.file("s");
  await leaveSocket(file);
  const [first, second] = [clearPath(file), clearPath(file)];
  const refused = expect(second).rejects.toMatchObject({ code: "EADDRINUSE" });
  const release = await first;
  const server = await serve(file);
  release();
  await refused;
  const visitor = net.connect(file);
  await once(visitor, "connect");
  visitor.destroy();
  server.close();
});

test("somebody who keeps the directory locked does not keep a helper from working", async () => {
  const file = scratch.file("s");
  await leaveSocket(file);
  const fd = fs.openSync(scratch.file("."), "r");
  expect(tryLock(fd)).toBe(true);
  const release = await clearPath(file);
  release();
  fs.closeSync(fd);
  expect(await scratch.names()).toEqual([]);
});
