import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { createRamFile } from "../../src/demo/ram-file.ts";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import { inspect, verify } from "../../src/index.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { counterByMonitor } from "../support/counting-guest.ts";
import {
  countingDisks,
  countingSetup,
  diskFiles,
  expectCounting,
  expectOneMoment,
  overlaysOf,
  startCounting,
  writeSector,
} from "../support/counting-vm.ts";
import { checkDirtyRam, currentPass } from "../support/dirty-ram.ts";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorDisk, type OperatorVm, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { settingsOf } from "../support/vm-flows.ts";

const MIB = 2 ** 20;
const UUID = "00112233-4455-6677-8899-aabbccddeeff";

describeEachQemu("snapshot of a VM that runs on", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const image = (): string => vms.file("vm.mfd");
  const inBackground = binary.major > 7;
  const modes = inBackground ? [["background"], ["live", "--live"]] : [["live", "--live"]];

  function snapshot(vm: OperatorVm, ...options: readonly string[]) {
    return start(["snapshot", image(), "--json", "--qmp", vm.monitorPath, ...options]);
  }

  function restore(vm: OperatorVm, ...options: readonly string[]) {
    return start(["restore", image(), "--json", "--qmp", vm.monitorPath, ...options]);
  }

  test.each(modes)("%s: its moment comes back, in memory and on disks, while it runs on", async (...mode) => {
    const disks = await countingDisks(vms);
    const setup = { ...countingSetup(binary, disks), uuid: UUID };
    const vm = await startCounting(vms, setup);
    const before = await settingsOf(vm.qmp);
    const helper = snapshot(vm, "--disks", "--name", "monday", ...mode.slice(1));
    const overlays = disks.map(({ path }) => `${path}.snap-monday.qcow2`);
    expect((await helper.success()).disks).toEqual(
      disks.map(({ path: base }, index) => ({ device: expect.any(String), base, overlay: overlays[index] })),
    );
    expect(await diskFiles(vm.qmp)).toEqual(overlays);
    expect(await settingsOf(vm.qmp)).toEqual(before);
    await expectCounting(vm);
    await verify({ image: image() });
    expect((await inspect({ image: image() })).metadata).toMatchObject({
      evidence: { decidedBy: "qmp" },
      vm: { running: true, ranOn: false, disks: disks.map(({ path: file }) => ({ file })) },
    });

    const own = await overlaysOf(disks, "own");
    const restored = await vms.start({ ...setup, disks: own, start: "incoming" });
    await restore(restored, "--paused").success();
    const moment = await expectOneMoment(restored.qmp, disks);
    expect(await counterByMonitor(vm.qmp)).toBeGreaterThan(moment);
    await restored.qmp.execute("cont");
    await expectCounting(restored);

    // The next overlays are named after the disks again; and RAM can have its places in a snapshot, too.
    const placed = ["--format", "mapped-ram"];
    await snapshot(vm, "--disks", "--name", "tuesday", ...placed, ...mode.slice(1)).success();
    expect(await verify({ image: image() })).toMatchObject({ checked: "checksums and structure" });
    expect(await inspect({ image: image() })).toMatchObject({ format: "mapped-ram", sealed: true });
    expect(await diskFiles(vm.qmp)).toEqual(disks.map(({ path }) => `${path}.snap-tuesday.qcow2`));
    await expectCounting(vm);
  });

  test("disks that another VM holds or that were written are refused with what to do", async () => {
    const disks = await countingDisks(vms);
    const setup = countingSetup(binary, disks);
    const vm = await startCounting(vms, setup);
    await snapshot(vm, "--live", "--disks").success();
    const same = await vms.start({ ...setup, start: "incoming" });
    expect(await restore(same).failure()).toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringMatching(/another process uses a disk .* lock.* overlays of its own/),
    });
    await same.process.quit();

    const own = await overlaysOf(disks, "own");
    await writeSector(own[0]?.path as string);
    const other = await vms.start({ ...setup, disks: own, start: "incoming" });
    expect(await restore(other).failure()).toMatchObject({
      code: "DISK_CHANGED",
      message: expect.stringContaining(`${own[0]?.path}, which lies over ${disks[0].path}, was written`),
    });
    await expectCounting(vm);
  });

  test("without its disks a VM is snapshotted only when that is said, and the image says it too", async () => {
    const disks = await countingDisks(vms);
    const vm = await vms.start(countingSetup(binary, disks));
    expect(await snapshot(vm, "--live").failure()).toMatchObject({
      code: "VM_STATE",
      message: expect.stringMatching(/first\.raw, .*second\.qcow2.*--disks .*--memory-only/),
    });
    await snapshot(vm, "--live", "--memory-only").success();
    expect((await inspect({ image: image() })).metadata?.vm?.ranOn).toBe(true);
    expect(await diskFiles(vm.qmp)).toEqual(disks.map(({ path }) => path));
    const other = await vms.start({ ...countingSetup(binary, []), start: "incoming" });
    expect(await restore(other).failure()).toMatchObject({ code: "VM_RAN_ON" });
  });

  test("a VM that stands still is saved bit for bit, and stays so until it is told to run", async () => {
    const ram = await createRamFile(64 * MIB);
    await fillRam(ram.path, 64 * MIB, 5);
    const [disk] = await countingDisks(vms);
    const setup = { ...countingSetup(binary, [disk]), ramPath: ram.path, uuid: UUID };
    const vm = await vms.start({ ...setup, start: "paused" });
    const helper = snapshot(vm, "--disks", "--name", "monday");
    await helper.success();
    const states = helper.events.filter(({ event }) => event === "vm").map(({ state }) => state);
    expect(states).toEqual(["migrating", "migrated", "paused"]);
    const copy = await createRamFile(64 * MIB);
    const [own] = await overlaysOf([disk], "own");
    const destination = await vms.start({
      ...setup,
      ramPath: copy.path,
      disks: [own as OperatorDisk],
      start: "incoming",
    });
    await restore(destination).success();
    expect(await destination.status()).not.toBe("running");
    expect(await compareFiles(ram.path, copy.path)).toMatchObject({ differing: 0 });

    await vm.qmp.execute("cont");
    expect(await vm.status()).toBe("running");
    expect(await diskFiles(vm.qmp)).toEqual([`${disk.path}.snap-monday.qcow2`]);
    await Promise.all([ram.close(), copy.close()]);
  });

  test.runIf(inBackground)("memory that is dirtied all the time is saved as of one instant", async () => {
    const walked = { start: MIB, end: 64 * MIB };
    await writeFile(vms.file("disk"), dirtierDisk(walked));
    const ram = await createRamFile(64 * MIB);
    const setup = {
      ...{ binary, ramBytes: 64 * MIB },
      extraArgs: ["-drive", `file=${vms.file("disk")},format=raw,if=virtio,readonly=on`],
    };
    const vm = await vms.start({ ...setup, ramPath: ram.path });
    const pass = (path: string): Promise<number> => currentPass(path, walked);
    await expect.poll(() => pass(ram.path), { timeout: 30_000 }).toBeGreaterThan(2);
    await snapshot(vm).success();
    const later = await pass(ram.path);
    await expect.poll(() => pass(ram.path), { timeout: 30_000 }).toBeGreaterThan(later);
    await vm.process.quit();

    const copy = await createRamFile(64 * MIB);
    const restored = await vms.start({ ...setup, ramPath: copy.path, start: "incoming" });
    await restore(restored, "--paused").success();
    const atRest = await checkDirtyRam(copy.path, walked);
    expect(atRest.violations).toBe(0);
    expect(atRest.sequence).toBeLessThanOrEqual(later);
    await restored.qmp.execute("cont");
    await expect.poll(() => pass(copy.path), { timeout: 30_000 }).toBeGreaterThan(atRest.sequence);
    await Promise.all([ram.close(), copy.close()]);
  });
});
