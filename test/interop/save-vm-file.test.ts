import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { createRamFile } from "../../src/demo/ram-file.ts";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import { inspect, verify } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { pickAccelerator } from "../support/accelerator.ts";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorVmOptions, useOperatorVms } from "../support/operator-vm.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { goodImage } from "../support/save-under-test.ts";
import { settingsOf, untilStatus } from "../support/vm-flows.ts";

const RAM = 128 * 2 ** 20;

describeBothQemus("--engine file", ({ seven, ten }) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const image = (): string => vms.file("vm.mr");

  /** Of a guest that runs; a BIOS is slow under KVM (see operator-vm.ts). */
  const running = { binary: ten, ramBytes: RAM };

  async function setup(binary: QemuBinary): Promise<OperatorVmOptions> {
    return { binary, ramBytes: RAM, accelerator: await pickAccelerator(binary) };
  }

  test.each([
    ["4 channels, as nothing is said", []],
    ["without multifd", ["--channels", "0"]],
    ["through the page cache", ["--direct-io", "off", "--channels", "2"]],
  ])("%s: RAM bit for bit, sealed, checked, and restored by itself", async (_how, options) => {
    const source = await createRamFile(RAM);
    await fillRam(source.path, RAM, 8);
    const vm = await vms.start({ ...(await setup(ten)), ramPath: source.path, start: "paused" });
    const args = ["save", image(), "--json", "--engine", "file", "--qmp", vm.monitorPath, ...options];
    expect((await start(args).success()).image).toMatchObject({ format: "mapped-ram" });
    expect(await vm.exited).toMatchObject({ code: 0 });
    expect(await verify({ image: image() })).toMatchObject({ checked: "checksums and structure" });
    expect((await inspect({ image: image() })).metadata?.vm).toMatchObject({ running: false, ramBytes: RAM });

    const file = await createRamFile(RAM);
    const destination = await vms.start({ ...(await setup(ten)), ramPath: file.path, start: "incoming" });
    const restored = start(["restore", image(), "--json", "--qmp", destination.monitorPath]);
    expect((await restored.success()).image).toMatchObject({ format: "mapped-ram" });
    expect(await compareFiles(source.path, file.path)).toMatchObject({ differing: 0 });
    expect(await destination.status()).not.toBe("running");
    await Promise.all([source.close(), file.close()]);
  });

  test("a VM that runs goes on after --then resume, with its settings as they were", async () => {
    const vm = await vms.start(running);
    const before = await settingsOf(vm.qmp);
    const args = ["save", image(), "--json", "--engine", "file", "--qmp", vm.monitorPath, "--then", "resume"];
    await start(args).success();
    expect(await vm.status()).toBe("running");
    expect(await settingsOf(vm.qmp)).toEqual(before);
    expect(await vm.qmp.execute("query-fdsets")).toEqual([]);
  });

  test.each<[string, NodeJS.Signals]>([
    ["cancelled", "SIGTERM"],
    ["put right by the guardian", "SIGKILL"],
  ])("%s in the middle by %s: the VM runs on, the earlier image stays", async (_what, signal) => {
    const ram = await createRamFile(RAM);
    await fillRam(ram.path, RAM, 9);
    const vm = await vms.start({ ...running, ramPath: ram.path });
    await writeFile(image(), await goodImage());
    const before = await settingsOf(vm.qmp);
    const args = ["save", image(), "--json", "--engine", "file", "--qmp", vm.monitorPath, "--rate", "20M"];
    const helper = start(args);
    await helper.waitEvent("progress", ({ bytes }) => Number(bytes) > 2 ** 20);
    helper.signal(signal);
    expect(await helper.exit()).toBe(signal === "SIGTERM" ? 143 : "SIGKILL");
    await untilStatus(vm.qmp, "running");
    await expect.poll(() => settingsOf(vm.qmp), { timeout: 10_000 }).toEqual(before);
    await expect.poll(() => vm.qmp.execute("query-fdsets")).toEqual([]);
    await verify({ image: image() });
    await ram.close();
  });

  test("QEMU 7.2 has no mapped-ram: refused, and its VM runs on", async () => {
    const vm = await vms.start({ ...running, binary: seven });
    const helper = start(["save", image(), "--json", "--engine", "file", "--qmp", vm.monitorPath]);
    expect(await helper.failure()).toMatchObject({
      code: "QEMU_UNSUPPORTED",
      status: 7,
      message: expect.stringContaining("use --engine helper"),
    });
    expect(await vm.status()).toBe("running");
  });

  test("compression does not go with it", async () => {
    const vm = await vms.start(running);
    const args = [
      "save",
      image(),
      "--json",
      "--engine",
      "file",
      "--compression",
      "zstd",
      "--qmp",
      vm.monitorPath,
    ];
    expect(await start(args).failure()).toMatchObject({ code: "USAGE", status: 2 });
    expect(await vm.status()).toBe("running");
  });
});
