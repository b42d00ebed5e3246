import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import { fillRam } from "../../src/demo/ram-pattern.ts";
import { type HelperProcess, useHelpers } from "../support/helper-process.ts";
import { describeWithMounts, useMounts } from "../support/mounts.ts";
import { type OperatorVm, type OperatorVmOptions, useOperatorVms } from "../support/operator-vm.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { SeverableMonitor } from "../support/severable-monitor.ts";
import { settingsOf, untilStatus } from "../support/vm-flows.ts";

const RAM = 64 * 2 ** 20;
const SLOWLY = ["--rate", "10M"];

/** Ways to save a VM beside the plain one, which vm-save.test.ts tries with every fault and both QEMUs. */
const FLOWS: Readonly<Record<string, (image: string, qmp: string) => string[]>> = {
  "save --live": (image, qmp) => ["save", image, "--qmp", qmp, "--live", "--max-downtime", "0.001"],
  snapshot: (image, qmp) => ["snapshot", image, "--qmp", qmp],
  "snapshot --live": (image, qmp) => ["snapshot", image, "--qmp", qmp, "--live"],
  "managed-save": (image, qmp) => ["managed-save", "vm", "--qmp", qmp, "--state-dir", path.dirname(image)],
};

describeBothQemus("with QEMU 10", ({ ten }) => {
  const vms = useOperatorVms();
  const mounts = useMounts();
  const start = useHelpers();
  let ram: RamFile;
  let vm: OperatorVm;
  let setup: OperatorVmOptions;
  let before: unknown;
  /** managed-save gives it this name. */
  const image = (): string => vms.file("state/vm.mfd");

  beforeEach(async () => {
    ram = await createRamFile(RAM);
    await fillRam(ram.path, RAM, 6);
    setup = { binary: ten, ramBytes: RAM };
    vm = await vms.start({ ...setup, ramPath: ram.path });
    before = await settingsOf(vm.qmp);
    await mkdir(vms.file("state"), { mode: 0o700 });
  });
  afterEach(() => ram.close());

  function run(flow: string, to: string, qmp: string, args: readonly string[] = SLOWLY): HelperProcess {
    return start([...(FLOWS[flow] as (image: string, qmp: string) => string[])(to, qmp), "--json", ...args]);
  }

  async function untilMoving(helper: HelperProcess): Promise<void> {
    await helper.waitEvent("progress", ({ bytes }) => Number(bytes) > 2 ** 18);
  }

  async function expectAsBefore(file: string): Promise<void> {
    await untilStatus(vm.qmp, "running");
    await expect.poll(() => settingsOf(vm.qmp), { timeout: 10_000 }).toEqual(before);
    expect(existsSync(file)).toBe(false);
  }

  test.each(["save --live", "snapshot --live", "managed-save"])("%s: QEMU is killed", async (flow) => {
    const helper = run(flow, image(), vm.monitorPath);
    await untilMoving(helper);
    process.kill(vm.pid, "SIGKILL");
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    expect(existsSync(image())).toBe(false);
  });

  test.each(Object.keys(FLOWS))("%s: the monitor's connection is cut while QEMU lives", async (flow) => {
    const monitor = await SeverableMonitor.before(vm.monitorPath, vms.file("cut.qmp"));
    const helper = run(flow, image(), monitor.path);
    await untilMoving(helper);
    monitor.cut();
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    await expectAsBefore(image());
    await monitor.close();
  });

  test("managed-save: SIGTERM", async () => {
    const helper = run("managed-save", image(), vm.monitorPath);
    await untilMoving(helper);
    helper.signal("SIGTERM");
    expect(await helper.failure()).toMatchObject({ code: "CANCELLED", status: 143 });
    await expectAsBefore(image());
  });

  describeWithMounts("on a disk that gets full", () => {
    test.each(["save --live", "managed-save"])("%s", async (flow) => {
      const disk = vms.file("disk");
      mounts.mount("tmpfs", disk, "size=24m,mode=0700");
      const target = path.join(disk, "vm.mfd");
      const helper = run(flow, target, vm.monitorPath, []);
      expect(await helper.failure()).toMatchObject({ code: "NO_SPACE", status: 5 });
      await expectAsBefore(target);
    });
  });

  test.each<[string, (helper: HelperProcess, pid: number) => void, object]>([
    ["SIGTERM", (helper) => helper.signal("SIGTERM"), { code: "CANCELLED", status: 143 }],
    ["QEMU is killed", (_, pid) => void process.kill(pid, "SIGKILL"), { code: "DESTINATION_CLOSED" }],
  ])("restore --qmp: %s", async (_what, strike, failure) => {
    const options = ["--then", "pause", "--json"];
    await start(["save", image(), "--qmp", vm.monitorPath, ...options]).success();
    const destination = await vms.start({ ...setup, ramPath: "/dev/shm", start: "incoming" });
    const helper = start(["restore", image(), "--json", "--qmp", destination.monitorPath, ...SLOWLY]);
    await untilMoving(helper);
    strike(helper, destination.pid);
    expect(await helper.failure()).toMatchObject(failure);
    await start(["verify", image(), "--json"]).success();
  });
});
