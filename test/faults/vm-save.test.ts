import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { beforeEach, expect, test } from "vitest";
import { createRamFile } from "../../src/demo/ram-file.ts";
import { fillRam } from "../../src/demo/ram-pattern.ts";
import { inspect, verify } from "../../src/index.ts";
import { type FaultSpec, withFault } from "../support/fault-spec.ts";
import { type HelperProcess, useHelpers } from "../support/helper-process.ts";
import { describeWithMounts, useMounts } from "../support/mounts.ts";
import { type OperatorVm, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { goodImage } from "../support/save-under-test.ts";
import { SeverableMonitor } from "../support/severable-monitor.ts";
import { settingsOf, untilStatus } from "../support/vm-flows.ts";

const RAM = 64 * 2 ** 20;
/** Slow enough for every fault to strike in the middle. */
const SLOWLY = ["--rate", "20M"];

describeEachQemu("a save of a running VM that fails", (binary) => {
  const vms = useOperatorVms();
  const mounts = useMounts();
  const start = useHelpers();
  let vm: OperatorVm;
  let ram: Awaited<ReturnType<typeof createRamFile>>;
  let before: unknown;
  let helper: HelperProcess;
  const image = (): string => vms.file("vm.mfd");

  beforeEach(async () => {
    ram = await createRamFile(RAM);
    await fillRam(ram.path, RAM, 3);
    vm = await vms.start({ binary, ramBytes: RAM, ramPath: ram.path });
    await writeFile(image(), await goodImage());
    before = await settingsOf(vm.qmp);
    return () => ram.close();
  });

  function save(args: readonly string[] = [], fault?: FaultSpec): HelperProcess {
    const all = ["save", image(), "--json", "--qmp", vm.monitorPath, ...args];
    helper = start(all, fault === undefined ? {} : withFault(fault));
    return helper;
  }

  /** Over all channels: a QEMU 7.2 that loses its helper while it connects never migrates again (docs/reliability.md). */
  async function untilMoving(): Promise<void> {
    await helper.waitEvent("progress", ({ bytes, channels }) => {
      return Number(bytes) > 2 ** 20 && (channels as readonly unknown[]).length === 5;
    });
  }

  /** The promise: the VM runs, its settings are as before, the earlier image is untouched, nothing lies about. */
  async function expectAsBefore(): Promise<void> {
    await untilStatus(vm.qmp, "running");
    expect(await settingsOf(vm.qmp)).toEqual(before);
    expect((await readFile(image())).equals(await goodImage())).toBe(true);
    await expect
      .poll(() => readdir(path.dirname(image())))
      .not.toContainEqual(expect.stringMatching(/partial/));
    await expect.poll(() => existsSync(socketDirectory())).toBe(false);
  }

  /** A private one, told by `listening`. */
  function socketDirectory(): string {
    const listening = helper.events.find(({ event }) => event === "listening");
    return path.dirname(String(listening?.address ?? "unix:/it-never-was/s").replace("unix:", ""));
  }

  /** And it is not worse for it. */
  async function expectRetryWorks(): Promise<void> {
    await save(["--then", "resume"]).success();
    await verify({ image: image() });
  }

  test.each([
    ["stopped", []],
    ["live", ["--live"]],
  ])("SIGTERM in the middle, %s: cancelled, and the VM runs on", async (_how, args) => {
    save([...SLOWLY, ...args]);
    await untilMoving();
    helper.signal("SIGTERM");
    expect(await helper.failure()).toMatchObject({ code: "CANCELLED", status: 143 });
    await expectAsBefore();
    await expectRetryWorks();
  });

  test.each([
    ["stopped", []],
    ["live", ["--live"]],
  ])("SIGKILL in the middle, %s: the guardian puts the VM right", async (_how, args) => {
    save([...SLOWLY, ...args]);
    await untilMoving();
    await helper.kill();
    await expectAsBefore();
    await expectRetryWorks();
  });

  // The first renameSync that the hook sees is the image's.
  test.each<[string, FaultSpec]>([
    ["before the first byte", { thread: "main", call: "write", nth: 1, when: "before", act: "kill" }],
    [
      "before the image gets its name",
      { thread: "main", call: "renameSync", nth: 1, when: "before", act: "kill" },
    ],
  ])("SIGKILL %s: the guardian puts the VM right", async (_when, fault) => {
    expect(await save([], fault).exit()).toBe("SIGKILL");
    await expectAsBefore();
  });

  test("SIGKILL after the image got its name: the guardian does what was to follow", async () => {
    const fault: FaultSpec = { thread: "main", call: "renameSync", nth: 1, when: "after", act: "kill" };
    expect(await save([], fault).exit()).toBe("SIGKILL");
    expect(await vm.exited).toMatchObject({ code: 0 });
    expect((await inspect({ image: image() })).metadata?.vm).toMatchObject({ running: true });
    await verify({ image: image() });
  });

  test("a VM that was paused stays paused", async () => {
    await vm.qmp.execute("stop");
    save(SLOWLY);
    await untilMoving();
    await helper.kill();
    await expect.poll(() => settingsOf(vm.qmp), { timeout: 20_000 }).toEqual(before);
    expect(await vm.status()).toBe("paused");
  });

  test("somebody else cancels the migration: QEMU's word is the reason", async () => {
    save(SLOWLY);
    await untilMoving();
    await vm.qmp.execute("migrate_cancel");
    expect(await helper.failure()).toMatchObject({
      code: "QEMU_FAILED",
      status: 7,
      message: expect.stringContaining("cancelled by somebody else"),
    });
    await expectAsBefore();
    await expectRetryWorks();
  });

  test("QEMU is killed: told, and the earlier image stays", async () => {
    save(SLOWLY);
    await untilMoving();
    process.kill(vm.pid, "SIGKILL");
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    expect((await readFile(image())).equals(await goodImage())).toBe(true);
    expect(existsSync(socketDirectory())).toBe(false);
  });

  test("the monitor's connection is cut while QEMU lives: another one puts the VM right", async () => {
    const monitor = await SeverableMonitor.before(vm.monitorPath, vms.file("cut.qmp"));
    helper = start(["save", image(), "--json", "--qmp", monitor.path, ...SLOWLY]);
    await untilMoving();
    monitor.cut();
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    await expectAsBefore();
    await monitor.close();
  });

  test("helper and guardian are killed together: recover does it", async () => {
    save(SLOWLY);
    await untilMoving();
    const guardian = await childOf(helper.pid);
    process.kill(guardian, "SIGKILL");
    await helper.kill();
    await untilStatus(vm.qmp, "paused");
    expect(await save().failure()).toMatchObject({
      code: "VM_STATE",
      message: expect.stringContaining("recover"),
    });
    const recovery = start(["recover", "--json", "--qmp", vm.monitorPath], { answers: true });
    expect(await recovery.exit()).toBe(0);
    await expectAsBefore();
    await expectRetryWorks();
  });

  describeWithMounts("on a disk that gets full", () => {
    test("NO_SPACE, and the VM runs on", async () => {
      const disk = vms.file("disk");
      mounts.mount("tmpfs", disk, "size=24m");
      const target = path.join(disk, "vm.mfd");
      helper = start(["save", target, "--json", "--qmp", vm.monitorPath]);
      expect(await helper.failure()).toMatchObject({ code: "NO_SPACE", status: 5 });
      expect(existsSync(target)).toBe(false);
      expect(await readdir(disk)).toEqual([]);
      await expectAsBefore();
      await expectRetryWorks();
    });
  });
});

/** The one process that this one started and that still runs: the guardian. */
async function childOf(pid: number): Promise<number> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return Number(children.trim().split(" ")[0]);
}
