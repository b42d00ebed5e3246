import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { pickAccelerator } from "../support/accelerator.ts";
import {
  counterByMonitor,
  counterInRam,
  counterOnDisk,
  countingDisk,
  countsTold,
} from "../support/counting-guest.ts";
import { useHelpers } from "../support/helper-process.ts";
import { bootLinux, describeLinuxGuest } from "../support/linux-guest.ts";
import { type OperatorVm, type OperatorVmOptions, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { linesOf } from "../support/serial-log.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
const LINE_EVERY = 16;

const run = promisify(execFile);
const vms = useOperatorVms();
const start = useHelpers();

/** Saves a VM that runs on until QEMU stops it by itself. */
async function saveRunning(vm: OperatorVm, image: string): Promise<void> {
  const how = ["--live", "--then", "pause"];
  await start(["save", image, "--json", "--qmp", vm.monitorPath, ...how]).success();
}

/** Restores into a VM started with "incoming"; the guest does not run yet. */
async function restoreInto(vm: OperatorVm, image: string): Promise<void> {
  await start(["restore", image, "--json", "--qmp", vm.monitorPath, "--paused"]).success();
}

describeEachQemu("a guest that counts", (binary) => {
  /**
   * Saves it while it counts, quits, and restores it elsewhere; both serial ports together must then be one guest that
   * counted without a gap.
   */
  async function moveCounting(
    options: Omit<OperatorVmOptions, "binary" | "ramBytes">,
    atRest: (vm: OperatorVm, count: number) => Promise<void>,
  ): Promise<void> {
    const setup = { binary, ramBytes: RAM, ...options };
    const saved = await vms.start(setup);
    await saved.serial.waitForLine(/^count 00000080$/);
    expect(await saved.status()).toBe("running");
    await saveRunning(saved, vms.file("vm.mfd"));
    expect(await saved.status()).toBe("postmigrate");
    const count = await counterByMonitor(saved.qmp);
    await atRest(saved, count);
    await saved.process.quit();

    if (setup.ramPath !== undefined) await rm(setup.ramPath); // RAM is empty at first
    const restored = await vms.start({ ...setup, start: "incoming" });
    await restoreInto(restored, vms.file("vm.mfd"));
    expect(await counterByMonitor(restored.qmp)).toBe(count);
    expect(await restored.serial.text()).toBe("");
    await atRest(restored, count);
    await restored.qmp.execute("cont");
    await restored.serial.waitForLine(/^count/, { from: 10 });

    const told = countsTold((await saved.serial.text()) + (await restored.serial.text()));
    expect(told).toEqual(told.map((_, index) => (index + 1) * LINE_EVERY));
  }

  test("is saved while it counts, restored, and goes on from where it was", async () => {
    const ramPath = vms.file("ram");
    const disks = [{ path: vms.file("disk") }];
    await writeFile(vms.file("disk"), countingDisk({ lineEvery: LINE_EVERY }));
    const accelerator = await pickAccelerator(binary);
    await moveCounting({ accelerator, ramPath, disks }, async (_, count) => {
      expect(await counterInRam(ramPath)).toBe(count);
    });
  });

  test("finds on its disks what it has in memory", async () => {
    const first = vms.file("first");
    const second = vms.file("second");
    await writeFile(first, countingDisk({ disks: 2, lineEvery: LINE_EVERY }));
    await run("qemu-img", ["create", "-q", "-f", "qcow2", second, `${MIB}`]);
    const disks = [{ path: first }, { path: second, format: "qcow2", bus: "virtio" }] as const;
    await moveCounting({ disks }, async (_, count) => {
      const counts = [count, await counterOnDisk(first), await counterOnDisk(second, "qcow2")];
      expect(counts).toEqual(counts.toSorted((a, b) => b - a)); // memory first, then one disk after the other
      expect(counts[2]).toBeGreaterThanOrEqual(count - 1);
    });
  });

  test("says that a disk failed rather than to count on without it", async () => {
    await writeFile(vms.file("disk"), countingDisk({ disks: 2 }));
    const disks = [{ path: vms.file("disk") }];
    const vm = await vms.start({ binary, ramBytes: RAM, disks });
    await vm.serial.waitForLine(/^disk error$/);
    expect(await counterByMonitor(vm.qmp)).toBe(1);
    expect(await counterOnDisk(vms.file("disk"))).toBe(1);
  });
});

describeLinuxGuest("a Linux", (binary) => {
  test("is saved while it works, restored, and goes on with its memory as it was", async () => {
    const saved = await bootLinux(vms, { binary });
    await saved.serial.waitForLine(/^memory ok, 2 files$/);
    await saveRunning(saved, vms.file("linux.mfd"));
    expect(await saved.status()).toBe("postmigrate");
    await saved.process.quit();

    const restored = await bootLinux(vms, { binary, start: "incoming" });
    await restoreInto(restored, vms.file("linux.mfd"));
    expect(await restored.serial.text()).toBe("");
    await restored.qmp.execute("cont");
    await restored.serial.waitForLine(/^memory ok, 3 files$/);

    // Both serial ports together are one Linux that was booted once.
    const said = linesOf((await saved.serial.text()) + (await restored.serial.text()));
    const told = said.map((line) => /^count (\d+) at ([\d.]+)$/.exec(line)).filter((match) => match !== null);
    const times = told.map((match) => Number(match[2]));
    expect(told.map((match) => Number(match[1]))).toEqual(told.map((_, index) => index + 1));
    expect(times).toEqual(times.toSorted((a, b) => a - b));
    expect(said.filter((line) => line === "guest up")).toHaveLength(1);
    expect(said).not.toContain("MEMORY DAMAGED");
  });
});
