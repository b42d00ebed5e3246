import fs from "node:fs";
import { createServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { connectQmp } from "../../../src/qmp/client.ts";
import { FakeMonitor } from "../../support/fake-monitor.ts";
import { describeAsRoot, NOBODY } from "../../support/other-user.ts";
import { useRawListeners } from "../../support/raw-listener.ts";
import { useScratch } from "../../support/scratch.ts";

const scratch = useScratch();
const rawListener = useRawListeners();
const path = (): string => scratch.file("qmp");

const monitors: FakeMonitor[] = [];
afterEach(() => {
  for (const monitor of monitors.splice(0)) monitor.close();
});

async function listen(greeting: FakeMonitor["greeting"]): Promise<FakeMonitor> {
  const monitor = await FakeMonitor.listen(path());
  monitor.greeting = greeting;
  monitors.push(monitor);
  return monitor;
}

/** Connects, and expects the one sentence that says why not. */
async function refusal(words: string, { to = path(), timeoutMs = 10_000 } = {}): Promise<object> {
  const error = await connectQmp(to, { timeoutMs }).then(
    () => expect.fail("it connected"),
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ name: "MultifdError", code: "MONITOR_UNREACHABLE", exitStatus: 7 });
  expect(error).toMatchObject({ message: expect.stringContaining(words), details: { path: to } });
  return (error as { details: object }).details;
}

describe("there is no monitor", () => {
  test("no such path", async () => {
    expect(await refusal("there is no such socket")).toMatchObject({ errno: "ENOENT" });
  });

  test("a path through a file", async () => {
    fs.writeFileSync(scratch.file("file"), "");
    await refusal("there is no such socket", { to: scratch.file("file/qmp") });
  });

  test("a file, a directory", async () => {
    fs.writeFileSync(path(), "");
    await refusal("that is no socket");
    await refusal("that is no socket", { to: scratch.directory });
  });

  test("a socket that nobody listens on any more", async () => {
    const server = createServer().listen(path());
    await new Promise((listening) => server.once("listening", listening));
    fs.linkSync(path(), scratch.file("dead"));
    await new Promise((closed) => server.close(closed));
    expect(await refusal("nobody listens there any more", { to: scratch.file("dead") })).toMatchObject({
      errno: "ECONNREFUSED",
    });
  });

  test("a path that no socket can have", async () => {
    const to = `${scratch.directory}/${"x".repeat(108)}`;
    expect(await refusal("longer than 107 bytes", { to })).toMatchObject({ errno: "ENAMETOOLONG" });
  });
});

describe("somebody listens, and does not greet", () => {
  test("a monitor that serves another client", async () => {
    await listen(null);
    const details = await refusal("probably in use by another client, such as libvirt", { timeoutMs: 50 });
    expect(details).toMatchObject({ awaited: "its greeting", timeoutMs: 50 });
  });

  test("a monitor that so many wait for that there is no room for one more", async () => {
    rawListener(path(), 0);
    const waiting = connectQmp(path(), { timeoutMs: 200 }).catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await refusal("too many clients wait there")).toMatchObject({ errno: "EAGAIN" });
    await waiting;
  });

  test.each([
    ["the human monitor", "QEMU 7.2.22 monitor - type 'help' for more information\r\n", "the human monitor"],
    ["another server", "SSH-2.0-OpenSSH_9.2\r\n", 'it said "SSH-2.0-OpenSSH_9.2"'],
    ["a greeting that is none", { QMP: { version: 7 } }, "does not speak QMP"],
    ["an event before any greeting", { event: "STOP" }, "does not speak QMP"],
  ])("%s", async (_title, greeting, words) => {
    await listen(greeting);
    await refusal(words);
  });

  test("a server that says half a line", async () => {
    await listen("220 ready");
    await refusal('it said "220 ready"', { timeoutMs: 50 });
  });

  test("a server that hangs up", async () => {
    const server = createServer((socket) => socket.destroy()).listen(path());
    await new Promise((listening) => server.once("listening", listening));
    await refusal("ended before a greeting came");
    server.close();
  });
});

describeAsRoot("as another user", () => {
  test("a monitor that is not for us", async () => {
    await listen(null);
    fs.chmodSync(scratch.directory, 0o711);
    fs.chmodSync(path(), 0o600);
    process.seteuid?.(NOBODY);
    try {
      expect(await refusal("no permission")).toMatchObject({ errno: "EACCES" });
    } finally {
      process.seteuid?.(0);
    }
  });
});
