import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { connectQmp } from "../../src/qmp/client.ts";

/** A scripted monitor: greets, and answers each command with what `answers` says; undefined is silence. */
class FakeMonitor {
  readonly server: Server;
  readonly received: { execute: string; arguments?: unknown; id: number }[] = [];
  client: Socket | undefined;
  greets = true;
  answers: (command: { execute: string; id: number }) => object | string | undefined = ({ id }) => ({
    return: {},
    id,
  });

  constructor() {
    this.server = createServer((socket) => {
      this.client = socket;
      socket.on("error", () => {});
      if (this.greets) this.send({ QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } } } });
      socket.setEncoding("utf8").on("data", (text: string) => {
        for (const line of text.split("\n").filter((part) => part.trim() !== "")) this.#receive(line);
      });
    });
  }

  send(message: object): void {
    this.client?.write(`${JSON.stringify(message)}\r\n`);
  }

  #receive(line: string): void {
    const command = JSON.parse(line);
    this.received.push(command);
    const answer =
      command.execute === "qmp_capabilities" ? { return: {}, id: command.id } : this.answers(command);
    if (typeof answer === "string") this.client?.write(answer);
    else if (answer !== undefined) this.send(answer);
  }
}

let directory: string;
let path: string;
let monitor: FakeMonitor;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "qmp-"));
  path = join(directory, "qmp");
  monitor = new FakeMonitor();
  await new Promise<void>((listening) => monitor.server.listen(path, listening));
});

afterEach(async () => {
  monitor.client?.destroy();
  monitor.server.close();
  await rm(directory, { recursive: true, force: true });
});

describe("a monitor that answers", () => {
  test("is greeted and commanded; arguments and results pass unchanged", async () => {
    monitor.answers = ({ id }) => ({ return: { status: "prelaunch" }, id });
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    expect(qmp.version).toEqual({ major: 7, minor: 2, micro: 22, package: "" });
    expect(await qmp.execute("query-status", { deep: [1] })).toEqual({ status: "prelaunch" });
    expect(monitor.received.at(-1)).toMatchObject({ execute: "query-status", arguments: { deep: [1] } });
    await qmp.close();
  });

  test("may answer out of order, and in pieces of a line", async () => {
    const ids: number[] = [];
    monitor.answers = ({ id }) => {
      ids.push(id);
      if (ids.length < 2) return undefined;
      const answers = ids.reverse().map((one) => `${JSON.stringify({ return: one, id: one })}\r\n`);
      monitor.client?.write(answers.join("").slice(0, 20));
      setTimeout(() => monitor.client?.write(answers.join("").slice(20)), 20);
      return undefined;
    };
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    const [first, second] = await Promise.all([qmp.execute("a"), qmp.execute("b")]);
    expect([second, first]).toEqual(ids);
    await qmp.close();
  });

  test("a refusal carries QEMU's class and text", async () => {
    monitor.answers = ({ id }) => ({ error: { class: "CommandNotFound", desc: "no such thing" }, id });
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    await expect(qmp.execute("fly")).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: "QEMU refused fly: no such thing",
      details: { command: "fly", class: "CommandNotFound", text: "no such thing" },
    });
    await qmp.close();
  });

  test("waitEvent takes the first event that fits and leaves the others alone", async () => {
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    const seen: string[] = [];
    qmp.onEvent(({ event }) => seen.push(event));
    const waiting = qmp.waitEvent(
      ({ event, data }) => event === "MIGRATION" && data.status === "completed",
      1000,
    );
    monitor.send({ event: "STOP" });
    monitor.send({ event: "MIGRATION", data: { status: "active" } });
    monitor.send({ event: "MIGRATION", data: { status: "completed" } });
    expect((await waiting).data).toEqual({ status: "completed" });
    expect(seen).toEqual(["STOP", "MIGRATION", "MIGRATION"]);
    await qmp.close();
  });
});

describe("a monitor that fails", () => {
  test("nobody listens", async () => {
    await expect(connectQmp(join(directory, "none"), { timeoutMs: 1000 })).rejects.toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: expect.stringContaining("ENOENT"),
    });
  });

  test("no greeting: connecting ends in time", async () => {
    monitor.greets = false;
    await expect(connectQmp(path, { timeoutMs: 50 })).rejects.toMatchObject({
      code: "QEMU_FAILED",
      details: { awaited: "its greeting", timeoutMs: 50 },
    });
  });

  test("no answer: the command ends in time, and a late answer hurts nobody", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    await expect(qmp.execute("migrate", {}, { timeoutMs: 30 })).rejects.toMatchObject({
      details: { awaited: "migrate" },
    });
    monitor.send({ return: "late", id: monitor.received.at(-1)?.id });
    monitor.answers = ({ id }) => ({ return: "fresh", id });
    expect(await qmp.execute("query-status")).toBe("fresh");
    await qmp.close();
  });

  test("a dead monitor rejects everything outstanding and everything later, with QEMU's last words", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path, { timeoutMs: 1000, explainLoss: async () => "qemu: cannot load RAM" });
    const outstanding = Promise.allSettled([
      qmp.execute("a"),
      qmp.execute("b"),
      qmp.waitEvent(() => true, 10_000),
    ]);
    setTimeout(() => monitor.client?.destroy(), 20);
    const lost = { code: "QEMU_FAILED", message: expect.stringContaining("qemu: cannot load RAM") };
    for (const result of await outstanding) {
      expect(result).toMatchObject({ status: "rejected", reason: lost });
    }
    await expect(qmp.execute("c")).rejects.toMatchObject(lost);
    await expect(qmp.waitEvent(() => true, 10_000)).rejects.toMatchObject(lost);
  });

  test("nonsense instead of JSON ends the connection", async () => {
    monitor.answers = () => "Segmentation fault\n";
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    await expect(qmp.execute("a")).rejects.toMatchObject({
      message: expect.stringContaining("Segmentation fault"),
    });
  });

  test("close() rejects what is outstanding", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path, { timeoutMs: 1000 });
    const outstanding = expect(qmp.execute("a")).rejects.toMatchObject({ code: "QEMU_FAILED" });
    await qmp.close();
    await outstanding;
  });
});
