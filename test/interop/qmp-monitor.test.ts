import { spawn } from "node:child_process";
import fs from "node:fs";
import { createConnection } from "node:net";
import { describe, expect, test } from "vitest";
import { guestArgs } from "../../src/demo/guest.ts";
import { connectQmp, type QmpClient } from "../../src/qmp/client.ts";
import { listenForMigration } from "../../src/vm/migration.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { openRawListener } from "../support/raw-listener.ts";
import { useScratch } from "../support/scratch.ts";
import { useVms } from "../support/vms.ts";

const args = guestArgs({ ramBytes: 64 * 2 ** 20, memory: { kind: "anonymous" }, accelerator: "tcg" });
const PATIENCE = { timeoutMs: 10_000 };
const QUICK = { timeoutMs: 500 };

describeEachQemu("a real monitor", (binary) => {
  const scratch = useScratch();
  const vms = useVms();
  const second = (): string => scratch.file("second.qmp");

  /** A VM with a monitor beside the one that startQemu holds. */
  function start(...more: string[]): Promise<QemuProcess> {
    return vms.startWith(binary, [...args, "-qmp", `unix:${second()},server=on,wait=off`, ...more]);
  }

  test("tells which process QEMU is", async () => {
    const vm = await start();
    expect(vm.qmp.pid).toBe(vm.pid);
  });

  test("of a socket that somebody else opened does not", async () => {
    const fd = openRawListener(scratch.file("given"));
    const qemu = spawn(
      binary.path,
      [...args, "-chardev", "socket,id=m,fd=3,server=on,wait=off", "-mon", "m,mode=control"],
      {
        stdio: ["ignore", "ignore", "inherit", fd],
      },
    );
    fs.closeSync(fd);
    const qmp = await connectQmp(scratch.file("given"), PATIENCE);
    expect(qmp.pid).toBeNull(); // and not this process, which called listen()
    const ended = new Promise((resolve) => qemu.once("exit", resolve));
    await qmp.execute("quit");
    await ended;
  });

  test("serves one client at a time", async () => {
    await start();
    const first = await connectQmp(second(), PATIENCE);
    await expect(connectQmp(second(), QUICK)).rejects.toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: expect.stringContaining("in use by another client"),
    });
    await first.close();
    await (await connectQmp(second(), PATIENCE)).close();
  });

  test("for people is recognized", async () => {
    await start("-monitor", `unix:${scratch.file("hmp")},server=on,wait=off`);
    await expect(connectQmp(scratch.file("hmp"), PATIENCE)).rejects.toMatchObject({
      code: "MONITOR_UNREACHABLE",
      message: expect.stringContaining("the human monitor"),
    });
  });

  test("of a stopped QEMU ends the wait, and answers again when QEMU goes on", async () => {
    const vm = await start();
    process.kill(vm.pid, "SIGSTOP");
    await expect(vm.qmp.execute("query-status", undefined, QUICK)).rejects.toMatchObject({
      code: "QEMU_FAILED",
      details: { awaited: "query-status", sent: true },
    });
    await expect(connectQmp(second(), QUICK)).rejects.toMatchObject({ code: "MONITOR_UNREACHABLE" });
    process.kill(vm.pid, "SIGCONT");
    expect(await vm.qmp.execute("query-name")).toEqual({});
  });

  test("of a killed QEMU is lost at once", async () => {
    const vm = await start();
    const qmp = await connectQmp(second(), PATIENCE);
    const waiting = qmp.waitEvent(() => false, 60_000);
    process.kill(vm.pid, "SIGKILL");
    await expect(waiting).rejects.toMatchObject({ code: "QEMU_FAILED" });
  });

  test("answers out of band while a destination is frozen by an idle connection", async () => {
    const vm = await start("-incoming", "defer");
    const qmp = await connectQmp(second(), PATIENCE);
    await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "multifd", state: true }] });
    const socket = vm.socketPath("in");
    await listenForMigration(qmp, `unix:${socket}`);
    // The first connection is taken for the main channel by 7.2 and can say nothing; the second one freezes both.
    const idle = [createConnection(socket), createConnection(socket)];
    await expect
      .poll(
        () =>
          qmp.execute("query-status", undefined, QUICK).then(
            () => "answers",
            (error) => error.code,
          ),
        { timeout: 10_000 },
      )
      .toBe("QEMU_FAILED");
    const yanks = await qmp.execute("query-yank", undefined, { ...PATIENCE, outOfBand: true });
    expect(yanks).toEqual(expect.arrayContaining([{ type: "chardev", id: expect.any(String) }]));
    await expect(qmp.execute("query-status", undefined, QUICK)).rejects.toMatchObject({
      details: { sent: false },
    });
    for (const connection of idle) connection.destroy();
  });

  test("refuses out of band what it does not offer there", async () => {
    const vm = await start();
    await expect(vm.qmp.execute("query-status", undefined, { outOfBand: true })).rejects.toMatchObject({
      code: "QEMU_FAILED",
      details: { command: "query-status", text: expect.stringContaining("OOB") },
    });
  });

  describe("gets descriptors", () => {
    const { O_CREAT, O_DIRECT, O_WRONLY } = fs.constants;
    const fdsOf = (pid: number): string[] => fs.readdirSync(`/proc/${pid}/fd`);

    /** 7.2 lets go of a removed descriptor only while the guest runs (monitor_fdset_cleanup, monitor/fds.c). */
    async function removeAll(qmp: QmpClient): Promise<void> {
      await qmp.execute("cont");
      await qmp.execute("remove-fd", { "fdset-id": 7 });
      expect(await qmp.execute("query-fdsets")).toEqual([]);
    }

    async function addFd(qmp: QmpClient, fd: number, opaque: string): Promise<number> {
      const added = await qmp.execute("add-fd", { "fdset-id": 7, opaque }, { fd });
      return (added as { fd: number }).fd;
    }

    test("with the right file and flags, and ours stay open", async () => {
      const vm = await start();
      const file = scratch.file("image");
      const plain = fs.openSync(file, O_WRONLY | O_CREAT, 0o600);
      const direct = fs.openSync(file, O_WRONLY | O_DIRECT);
      const theirs = [await addFd(vm.qmp, plain, "plain"), await addFd(vm.qmp, direct, "direct")];
      const [set] = (await vm.qmp.execute("query-fdsets")) as { fds: { fd: number; opaque: string }[] }[];
      expect(new Map(set?.fds.map(({ fd, opaque }) => [opaque, fd]))).toEqual(
        new Map([
          ["plain", theirs[0]],
          ["direct", theirs[1]],
        ]),
      );
      const flags = theirs.map((fd) => {
        expect(fs.readlinkSync(`/proc/${vm.pid}/fd/${fd}`)).toBe(file);
        const info = fs.readFileSync(`/proc/${vm.pid}/fdinfo/${fd}`, "utf8");
        return Number.parseInt(/^flags:\s+(\d+)/m.exec(info)?.[1] ?? "", 8) & (O_DIRECT | O_WRONLY);
      });
      expect(flags).toEqual([O_WRONLY, O_WRONLY | O_DIRECT]);
      for (const fd of [plain, direct]) {
        fs.fstatSync(fd);
        fs.closeSync(fd);
      }
      await removeAll(vm.qmp);
    });

    test("a hundred, at once and again, and neither side keeps one", async () => {
      const vm = await start();
      const before = [fdsOf(vm.pid).length, fdsOf(process.pid).length];
      for (const _round of [1, 2]) {
        const ours = Array.from({ length: 100 }, (_, n) => fs.openSync(scratch.file(`f${n}`), "w"));
        const theirs = await Promise.all(ours.map((fd, n) => addFd(vm.qmp, fd, `${n}`)));
        const names = theirs.map((fd) => fs.readlinkSync(`/proc/${vm.pid}/fd/${fd}`));
        expect(names).toEqual(ours.map((_, n) => scratch.file(`f${n}`)));
        await removeAll(vm.qmp);
        for (const fd of ours) fs.closeSync(fd);
      }
      expect([fdsOf(vm.pid).length, fdsOf(process.pid).length]).toEqual(before);
    });

    test("between other commands", async () => {
      const vm = await start();
      const fd = fs.openSync(scratch.file("f"), "w");
      const answers = await Promise.all([
        vm.qmp.execute("query-name"),
        vm.qmp.execute("add-fd", { "fdset-id": 7, opaque: "mine" }, { fd }),
        vm.qmp.execute("query-yank", undefined, { outOfBand: true }),
        vm.qmp.execute("query-fdsets"),
      ]);
      expect(answers[3]).toMatchObject([{ fds: [{ opaque: "mine" }] }]);
      fs.closeSync(fd);
    });

    test("not one that is not open: the command fails, the monitor goes on", async () => {
      const vm = await start();
      await expect(addFd(vm.qmp, 9999, "none")).rejects.toMatchObject({
        code: "QEMU_FAILED",
        message: "cannot pass descriptor 9999 to QEMU: sendmsg says EBADF",
      });
      expect(await vm.qmp.execute("query-fdsets")).toEqual([]);
    });
  });
});
