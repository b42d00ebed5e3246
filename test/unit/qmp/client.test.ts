import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { connectQmp } from "../../../src/qmp/client.ts";
import { FakeMonitor } from "../../support/fake-monitor.ts";
import { useScratch } from "../../support/scratch.ts";

const PATIENCE = { timeoutMs: 10_000 };
const WITH_OOB = { QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 } }, capabilities: ["oob"] } };

const scratch = useScratch();
const path = (): string => scratch.file("qmp");
let monitor: FakeMonitor;

beforeEach(async () => {
  monitor = await FakeMonitor.listen(path());
});
afterEach(() => monitor.close());

describe("a monitor that answers", () => {
  test("is greeted and commanded; arguments and results pass unchanged", async () => {
    monitor.answers = ({ id }) => ({ return: { status: "prelaunch" }, id });
    const qmp = await connectQmp(path(), PATIENCE);
    expect(qmp.version).toEqual({ major: 7, minor: 2, micro: 22, package: "" });
    expect(await qmp.execute("query-status", { deep: ["ä"] })).toEqual({ status: "prelaunch" });
    expect(monitor.received.at(-1)).toMatchObject({ execute: "query-status", arguments: { deep: ["ä"] } });
    await qmp.close();
  });

  test("may answer in pieces of a line, and of a character", async () => {
    monitor.answers = ({ id }) => {
      const bytes = Buffer.from(`${JSON.stringify({ return: "ä€", id })}\r\n`);
      for (const byte of bytes) setTimeout(() => monitor.client?.write(Buffer.from([byte])), 1);
      return undefined;
    };
    const qmp = await connectQmp(path(), PATIENCE);
    expect(await qmp.execute("a")).toBe("ä€");
    await qmp.close();
  });

  test("gets one command at a time, in the order of the calls", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path(), PATIENCE);
    const results = [qmp.execute("a"), qmp.execute("b")];
    await expect.poll(() => monitor.commands).toEqual(["a"]);
    monitor.send({ return: 1, id: monitor.received.at(-1)?.id });
    await expect.poll(() => monitor.commands).toEqual(["a", "b"]);
    monitor.send({ return: 2, id: monitor.received.at(-1)?.id });
    expect(await Promise.all(results)).toEqual([1, 2]);
    await qmp.close();
  });

  test("a refusal carries QEMU's class and text", async () => {
    monitor.answers = ({ id }) => ({ error: { class: "CommandNotFound", desc: "no such thing" }, id });
    const qmp = await connectQmp(path(), PATIENCE);
    await expect(qmp.execute("fly")).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: "QEMU refused fly: no such thing",
      details: { command: "fly", class: "CommandNotFound", text: "no such thing" },
    });
    await qmp.close();
  });

  test("waitEvent takes the first event that fits and leaves the others alone", async () => {
    const qmp = await connectQmp(path(), PATIENCE);
    const seen: string[] = [];
    qmp.onEvent(({ event }) => seen.push(event));
    const waiting = qmp.waitEvent(
      ({ event, data }) => event === "MIGRATION" && data.status === "completed",
      10_000,
    );
    monitor.send({ event: "STOP" });
    monitor.send({ event: "MIGRATION", data: { status: "active" } });
    monitor.send({ event: "MIGRATION", data: { status: "completed" } });
    expect((await waiting).data).toEqual({ status: "completed" });
    expect(seen).toEqual(["STOP", "MIGRATION", "MIGRATION"]);
    await qmp.close();
  });
});

describe("a descriptor", () => {
  test("goes along with commands larger than the socket's buffer, between others that are", async () => {
    const qmp = await connectQmp(path(), PATIENCE);
    const large = { opaque: "x".repeat(2 * 2 ** 20) };
    await Promise.all([
      qmp.execute("a", large),
      qmp.execute("add-fd", large, { fd: 0 }),
      qmp.execute("b", large, { fd: 0 }),
    ]);
    expect(monitor.commands).toEqual(["a", "add-fd", "b"]);
    for (const command of monitor.received.slice(1)) expect(command.arguments).toEqual(large);
    await qmp.close();
  });

  test("is not sent any more when its command was given up", async () => {
    monitor.greeting = WITH_OOB;
    const qmp = await connectQmp(path(), PATIENCE);
    monitor.client?.pause();
    // Out of band, so that nothing but the full socket keeps the second one back.
    const options = { outOfBand: true, fd: 0, timeoutMs: 200 };
    const full = qmp.execute("first", { opaque: "x".repeat(2 * 2 ** 20) }, { ...options, ...PATIENCE });
    await expect(qmp.execute("second", {}, options)).rejects.toMatchObject({ details: { sent: false } });
    monitor.client?.resume();
    await full;
    await qmp.execute("third");
    expect(monitor.commands).toEqual(["!first", "third"]);
    await qmp.close();
  });
});

describe("out of band", () => {
  test("a command overtakes those that wait", async () => {
    monitor.greeting = WITH_OOB;
    monitor.answers = (command) => (command["exec-oob"] ? { return: "ahead", id: command.id } : undefined);
    const qmp = await connectQmp(path(), PATIENCE);
    expect(monitor.received[0]).toMatchObject({ arguments: { enable: ["oob"] } });
    const stuck = [qmp.execute("a"), qmp.execute("b")].map((one) => one.catch(() => {}));
    expect(await qmp.execute("yank", undefined, { outOfBand: true })).toBe("ahead");
    expect(monitor.commands).toEqual(["a", "!yank"]);
    await qmp.close();
    await Promise.all(stuck);
  });

  test("is as any other where the monitor has no such thing", async () => {
    const qmp = await connectQmp(path(), PATIENCE);
    await qmp.execute("yank", undefined, { outOfBand: true });
    expect(monitor.commands).toEqual(["yank"]);
    expect(monitor.received[0]).not.toHaveProperty("arguments");
    await qmp.close();
  });

  test("is possible however many commands were given up", async () => {
    monitor.greeting = WITH_OOB;
    monitor.answers = (command) => (command["exec-oob"] ? { return: "ahead", id: command.id } : undefined);
    const qmp = await connectQmp(path(), PATIENCE);
    const polls = Array.from({ length: 20 }, () =>
      qmp.execute("query-migrate", undefined, { timeoutMs: 30 }),
    );
    const ends = await Promise.allSettled(polls);
    const sent = ends.map((end) => end.status === "rejected" && end.reason.details.sent);
    expect(sent).toEqual([true, ...Array(19).fill(false)]);
    expect(await qmp.execute("yank", undefined, { outOfBand: true })).toBe("ahead");
    expect(monitor.commands).toEqual(["query-migrate", "!yank"]);
    await qmp.close();
  });
});

describe("a monitor that fails", () => {
  test("no answer: the command ends in time, and a late answer hurts nobody", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path(), PATIENCE);
    await expect(qmp.execute("migrate", {}, { timeoutMs: 30 })).rejects.toMatchObject({
      code: "QEMU_FAILED",
      details: { awaited: "migrate", timeoutMs: 30, sent: true },
    });
    await expect(qmp.execute("query-migrate", {}, { timeoutMs: 30 })).rejects.toMatchObject({
      message: expect.stringContaining("busy with migrate, so that query-migrate could not be sent"),
      details: { awaited: "query-migrate", timeoutMs: 30, sent: false },
    });
    const fresh = qmp.execute("query-status");
    monitor.answers = ({ id }) => ({ return: "fresh", id });
    monitor.send({ return: "late", id: monitor.received.at(-1)?.id });
    expect(await fresh).toBe("fresh");
    expect(monitor.commands).toEqual(["migrate", "query-status"]);
    await qmp.close();
  });

  test("a dead monitor rejects everything outstanding and everything later, with QEMU's last words", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path(), { ...PATIENCE, explainLoss: async () => "qemu: cannot load RAM" });
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

  test.each([
    ["words", "Segmentation fault\n", "Segmentation fault"],
    ["no object", "[1]\n", "[1]"],
    ["an answer to nobody", '{"return":{}}\n', '{"return":{}}'],
  ])("nonsense ends the connection: %s", async (_title, nonsense, shown) => {
    monitor.answers = () => nonsense;
    const qmp = await connectQmp(path(), PATIENCE);
    await expect(qmp.execute("a")).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining(shown),
    });
  });

  test("a line without end ends the connection, too", async () => {
    const qmp = await connectQmp(path(), PATIENCE);
    const lost = expect(qmp.waitEvent(() => true, 60_000)).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("more than 64 MiB without a line's end"),
    });
    const piece = Buffer.alloc(2 ** 20, "x");
    for (let sent = 0; sent < 65; sent++) monitor.client?.write(piece);
    await lost;
  });

  test("close() rejects what is outstanding", async () => {
    monitor.answers = () => undefined;
    const qmp = await connectQmp(path(), PATIENCE);
    const outstanding = expect(qmp.execute("a")).rejects.toMatchObject({ code: "QEMU_FAILED" });
    await qmp.close();
    await outstanding;
  });
});
