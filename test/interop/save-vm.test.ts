import { readFile, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { createRamFile } from "../../src/demo/ram-file.ts";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import { inspect, verify } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { pickAccelerator } from "../support/accelerator.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam, currentPass } from "../support/dirty-ram.ts";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorVm, operatorArgs, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { settingsOf, untilStatus } from "../support/vm-flows.ts";

const RAM = 32 * 2 ** 20;
const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const CLONE = "99999999-4455-6677-8899-aabbccddeeff";

describeEachQemu("save and restore of a VM over QMP", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const image = (): string => vms.file("vm.mfd");
  /** Of a guest that runs; a BIOS is slow under KVM (see operator-vm.ts). */
  const running = { binary, ramBytes: RAM };

  /** A guest with known RAM, and the file that it is in. */
  async function source(uuid?: string): Promise<{ vm: OperatorVm; ram: string; close: () => Promise<void> }> {
    const file = await createRamFile(RAM);
    await fillRam(file.path, RAM, 5);
    const vm = await vms.start({
      ...(await setup(binary)),
      ramPath: file.path,
      start: "paused",
      ...(uuid === undefined ? {} : { uuid }),
    });
    return { vm, ram: file.path, close: () => file.close() };
  }

  async function setup(qemu: QemuBinary) {
    return { binary: qemu, ramBytes: RAM, accelerator: await pickAccelerator(qemu) };
  }

  test.each([
    ["4 channels, as nothing is said", []],
    ["one stream", ["--channels", "0"]],
    ["16 channels", ["--channels", "16"]],
    ["1 channel and zlib", ["--channels", "1", "--compression", "zlib:1"]],
    ["zstd", ["--compression", "zstd:3"]],
    ["live, of a VM that stands still", ["--live", "--max-downtime", "1"]],
  ])(
    "%s: RAM bit for bit, and nothing about the image has to be said at the restore",
    async (_how, options) => {
      const { vm, ram, close } = await source(UUID);
      const saved = await start(["save", image(), "--json", "--qmp", vm.monitorPath, ...options]).success();
      expect(await vm.exited).toMatchObject({ code: 0 });
      expect(saved.image).toMatchObject({ vmUuid: options.includes("0") ? null : UUID });
      await verify({ image: image() });

      const file = await createRamFile(RAM);
      const destination = await vms.start({
        ...(await setup(binary)),
        ramPath: file.path,
        uuid: UUID,
        start: "incoming",
      });
      await start(["restore", image(), "--json", "--qmp", destination.monitorPath]).success();
      expect(await compareFiles(ram, file.path)).toMatchObject({ differing: 0 });
      // It did not run when it was saved.
      expect(await destination.status()).not.toBe("running");
      await Promise.all([close(), file.close()]);
    },
  );

  test("the image records the VM: version, arguments, UUID, CPU, accelerator, devices", async () => {
    const { vm, close } = await source(UUID);
    await start(["save", image(), "--json", "--qmp", `unix:${vm.monitorPath}`]).success();
    const { metadata } = await inspect({ image: image() });
    expect(metadata).toMatchObject({
      qemuVersion: binary.version,
      vmUuid: UUID,
      evidence: { verdict: "complete", decidedBy: "qmp" },
      vm: { cpus: 1, ramBytes: RAM, running: false, ranOn: false, disks: [] },
    });
    expect(metadata?.vm?.commandLine).toContain("-uuid");
    expect(metadata?.vm?.accelerator).toBe(await pickAccelerator(binary));
    expect(metadata?.vm?.cpuModel).toMatch(/x86_64-cpu$/);
    await close();
  });

  test.each([
    ["resume", "running"],
    ["pause", "postmigrate"],
  ])("--then %s leaves the VM %s, with its settings as they were", async (then, status) => {
    const vm = await vms.start(running);
    await vm.qmp.execute("migrate-set-parameters", { "max-bandwidth": 12_345_678, "downtime-limit": 77 });
    await vm.qmp.execute("migrate-set-capabilities", {
      capabilities: [{ capability: "xbzrle", state: true }],
    });
    const before = await settingsOf(vm.qmp);
    const helper = start(["save", image(), "--json", "--qmp", vm.monitorPath, "--then", then]);
    await helper.success();
    expect(await vm.status()).toBe(status);
    expect(await settingsOf(vm.qmp)).toEqual(before);
    const states = helper.events.filter(({ event }) => event === "vm").map(({ state }) => state);
    expect(states).toEqual(["paused", "migrating", "migrated", then === "resume" ? "running" : "paused"]);
    expect((await inspect({ image: image() })).metadata?.vm).toMatchObject({
      running: true,
      ranOn: then === "resume",
    });
  });

  test("a second save after --then resume works, and replaces the image", async () => {
    const vm = await vms.start(running);
    for (const channels of ["2", "3"]) {
      const args = [
        "save",
        image(),
        "--json",
        "--qmp",
        vm.monitorPath,
        "--then",
        "resume",
        "--channels",
        channels,
      ];
      expect((await start(args).success()).image).toMatchObject({ multifdChannels: Number(channels) });
    }
  });

  const [what, limit] =
    binary.major === 7 ? ["passes", ["--max-passes", "2"]] : ["seconds", ["--max-seconds", "1"]];
  test(`live, of a guest that never holds still: stopped after so many ${what}, and saved as it was then`, async () => {
    const walked = { start: 2 ** 20, end: RAM };
    await writeFile(vms.file("boot"), dirtierDisk(walked));
    const source = await createRamFile(RAM);
    const disks = [{ path: vms.file("boot") }];
    const guest = { ...running, disks };
    const vm = await vms.start({ ...guest, ramPath: source.path });
    await expect.poll(() => currentPass(source.path, walked), { timeout: 30_000 }).toBeGreaterThan(2);
    const how = ["--live", "--max-downtime", "0.001", "--rate", "200M", "--then", "pause", ...limit];
    const helper = start(["save", image(), "--json", "--qmp", vm.monitorPath, ...how]);
    await helper.success();
    expect(helper.events).toContainEqual(expect.objectContaining({ event: "vm", state: "paused" }));

    const file = await createRamFile(RAM);
    const destination = await vms.start({ ...guest, ramPath: file.path, start: "incoming" });
    await start(["restore", image(), "--json", "--qmp", destination.monitorPath, "--paused"]).success();
    expect(await compareFiles(source.path, file.path)).toMatchObject({ differing: 0 });
    expect(await checkDirtyRam(file.path, walked)).toMatchObject({ violations: 0 });
    await Promise.all([source.close(), file.close()]);
  });

  test("restore starts QEMU with the user's arguments, passes signals and its exit status on", async () => {
    const vm = await vms.start(running);
    await start(["save", image(), "--json", "--qmp", vm.monitorPath]).success();
    const command = [binary.path, ...operatorArgs(running), ...vm.serial.args];
    const helper = start(["restore", image(), "--json", "--", ...command]);
    await helper.waitEvent("completed");
    expect(helper.events.filter(({ event }) => event === "vm").at(-1)).toMatchObject({ state: "running" });
    helper.signal("SIGTERM"); // QEMU's own answer to it is to end with status 0
    expect(await helper.exit()).toBe(0);
  });

  test("--detach ends with the VM running by itself, and a pid file", async () => {
    const vm = await vms.start(running);
    await start(["save", image(), "--json", "--qmp", vm.monitorPath]).success();
    const monitor = vms.file("own.qmp");
    const command = [
      ...[binary.path, ...operatorArgs(running), ...vm.serial.args],
      ...["-qmp", `unix:${monitor},server=on,wait=off`],
    ];
    const pidFile = vms.file("pid");
    await start([
      "restore",
      image(),
      "--json",
      "--detach",
      "--pid-file",
      pidFile,
      "--",
      ...command,
    ]).success();
    const pid = Number(await readFile(pidFile, "utf8"));
    try {
      // The VM's own monitor is the user's: the next save goes there.
      const again = start(["save", image(), "--json", "--qmp", monitor, "--then", "resume"]);
      await again.success();
      expect(again.events).toContainEqual(expect.objectContaining({ event: "vm", state: "running" }));
    } finally {
      process.kill(pid, "SIGKILL");
    }
  });

  test("--paused and --running override how the VM was", async () => {
    const { vm, close } = await source();
    await start(["save", image(), "--json", "--qmp", vm.monitorPath]).success();
    for (const [option, status] of [
      ["--running", "running"],
      ["--paused", "paused"],
    ] as const) {
      const destination = await vms.start({
        ...(await setup(binary)),
        ramPath: "/dev/shm",
        start: "incoming",
      });
      const args = ["restore", image(), "--json", "--qmp", destination.monitorPath, option];
      await start(args).success();
      if (status === "running") await untilStatus(destination.qmp, status);
      else expect(await destination.status()).not.toBe("running");
    }
    await close();
  });

  test("a clone gets a UUID of its own with --uuid, and is refused without", async () => {
    const { vm, close } = await source(UUID);
    await start(["save", image(), "--json", "--qmp", vm.monitorPath]).success();
    const destination = await vms.start({
      ...(await setup(binary)),
      ramPath: "/dev/shm",
      uuid: CLONE,
      start: "incoming",
    });
    const args = ["restore", image(), "--json", "--qmp", destination.monitorPath];
    expect(await start(args).failure()).toMatchObject({
      code: "VM_MISMATCH",
      status: 4,
      message: expect.stringContaining(`its UUID is ${CLONE} and was ${UUID}`),
    });
    await start([...args, "--uuid", CLONE]).success();
    expect(await destination.qmp.execute("query-uuid")).toEqual({ UUID: CLONE });
    await close();
  });

  test("RAM in a used file is refused, and emptied with --clear-ram", async () => {
    const { vm, ram, close } = await source();
    await start(["save", image(), "--json", "--qmp", vm.monitorPath]).success();
    const { needsZeroedRam } = (await inspect({ image: image() })).metadata ?? {};
    const file = await createRamFile(RAM);
    await fillRam(file.path, RAM, 99);
    const destination = await vms.start({ ...(await setup(binary)), ramPath: file.path, start: "incoming" });
    const args = ["restore", image(), "--json", "--qmp", destination.monitorPath];
    if (needsZeroedRam)
      expect(await start(args).failure()).toMatchObject({ code: "RAM_NOT_EMPTY", status: 4 });
    await start(needsZeroedRam ? [...args, "--clear-ram"] : args).success();
    expect(await compareFiles(ram, file.path)).toMatchObject({ differing: 0 });
    await Promise.all([close(), file.close()]);
  });
});
