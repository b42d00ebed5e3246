import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import {
  countingDisks,
  countingSetup,
  diskFiles,
  expectCounting,
  COUNTING_RAM as RAM_BYTES,
  startCounting,
} from "../support/counting-vm.ts";
import { type FaultSpec, withFault } from "../support/fault-spec.ts";
import { type HelperOptions, type HelperProcess, useHelpers } from "../support/helper-process.ts";
import { type OperatorVm, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { settingsOf } from "../support/vm-flows.ts";

const FULL: FaultSpec = {
  ...{ thread: "worker", call: "write", nth: 1, when: "before" },
  ...{ act: "fail", errno: "ENOSPC" },
};
/** The image gets its name. By then the disks have their overlays in any mode. */
const PUBLISHING = { thread: "main", call: "renameSync", nth: 1, when: "before" } as const;
/** So slow, with RAM that is full of data, that it is still going on when it is hit. */
const SLOWLY = ["--rate", "4M"];

describeEachQemu("a snapshot that fails", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const modes = binary.major > 7 ? [["background"], ["live", "--live"]] : [["live", "--live"]];

  function snapshot(vm: OperatorVm, options: readonly string[], helper?: HelperOptions) {
    const args = ["snapshot", vms.file("vm.mfd"), "--json", "--qmp", vm.monitorPath, ...options];
    return start(args, helper);
  }

  let ram: RamFile;
  beforeEach(async () => {
    ram = await createRamFile(RAM_BYTES);
  });
  afterEach(() => ram.close());

  async function counting() {
    const disks = await countingDisks(vms);
    await writeFile(ram.path, randomBytes(RAM_BYTES), { flag: "r+" });
    const vm = await startCounting(vms, { ...countingSetup(binary, disks), ramPath: ram.path });
    const files = disks.map(({ path }) => path);
    return {
      vm,
      files,
      overlays: files.map((file) => `${file}.snap-a.qcow2`),
      settings: await settingsOf(vm.qmp),
    };
  }

  test.each(modes)("%s: leaves the VM running as before, without overlays or an image", async (...mode) => {
    const options = ["--disks", "--name", "a", ...mode.slice(1)];
    const { vm, files, overlays, settings } = await counting();

    async function expectAsBefore(helper: HelperProcess): Promise<void> {
      await expectCounting(vm);
      expect(await settingsOf(vm.qmp)).toEqual(settings);
      expect(await diskFiles(vm.qmp)).toEqual(files);
      const { address } = await helper.waitEvent("listening");
      const directory = dirname(String(address).slice("unix:".length));
      expect([...overlays, directory, vms.file("vm.mfd")].filter((file) => existsSync(file))).toEqual([]);
    }

    const full = snapshot(vm, options, withFault(FULL));
    expect(await full.failure()).toMatchObject({ code: "NO_SPACE" });
    await expectAsBefore(full);

    const unnamed = snapshot(vm, options, withFault({ ...PUBLISHING, act: "fail" }));
    expect(await unnamed.failure()).toMatchObject({ code: "IO" });
    await expectAsBefore(unnamed);

    const stopped = snapshot(vm, [...options, ...SLOWLY]);
    await stopped.waitEvent("progress", ({ qemu }) => qemu !== undefined);
    stopped.signal("SIGTERM");
    expect(await stopped.failure()).toMatchObject({ code: "CANCELLED", status: 143 });
    await expectAsBefore(stopped);
  });

  test.each(modes)(
    "%s: kill -9 leaves the VM running, and word of where its disks go on",
    async (...mode) => {
      const { vm, overlays, settings } = await counting();
      const killed = withFault({ ...PUBLISHING, act: "kill" });
      const helper = snapshot(vm, ["--disks", "--name", "a", ...mode.slice(1)], killed);
      expect(await helper.exit()).toBe("SIGKILL");
      expect(helper.stderr).toContain(`its disks go on in ${overlays.join(", ")}: keep what is below`);
      await expectCounting(vm);
      expect(await settingsOf(vm.qmp)).toEqual(settings);
      expect(await diskFiles(vm.qmp)).toEqual(overlays);
      expect(existsSync(vms.file("vm.mfd"))).toBe(false);
    },
  );

  test.runIf(binary.major > 7)("in the background: kill -9 in the middle leaves the VM running", async () => {
    const { vm, overlays, settings } = await counting();
    const helper = snapshot(vm, ["--disks", "--name", "a", ...SLOWLY]);
    await helper.waitEvent("progress", ({ qemu }) => qemu !== undefined);
    await helper.kill();
    await expectCounting(vm);
    await expect.poll(() => settingsOf(vm.qmp), { timeout: 10_000 }).toEqual(settings);
    expect(await diskFiles(vm.qmp)).toEqual(overlays);
    // The next one finds nothing in its way.
    await snapshot(vm, ["--disks", "--name", "b"]).success();
  });

  test.runIf(binary.major > 7)("when QEMU dies: says where its disks are", async () => {
    const { vm, overlays } = await counting();
    const helper = snapshot(vm, ["--disks", "--name", "a", ...SLOWLY]);
    await helper.waitEvent("progress", ({ qemu }) => qemu !== undefined);
    process.kill(vm.pid, "SIGKILL");
    expect(await helper.failure()).toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining(`what the VM writes is in ${overlays.join(", ")} now`),
    });
    expect(existsSync(vms.file("vm.mfd"))).toBe(false);
  });

  test("is refused before anything is changed, with what to do", async () => {
    const disks = await countingDisks(vms);
    const vm = await vms.start(countingSetup(binary, disks));
    const overlay = `${disks[1].path}.snap-a.qcow2`;
    await writeFile(overlay, "somebody else's");
    const refusals = [
      [["--live", "--disks", "--name", "a"], "VM_STATE", `${overlay} exists already: choose another --name`],
      [["--max-passes", "2"], "USAGE", "makes no sense without --live"],
    ] as const;
    for (const [options, code, text] of refusals) {
      const message = expect.stringContaining(text);
      expect(await snapshot(vm, options).failure()).toMatchObject({ code, message });
    }
    expect(await diskFiles(vm.qmp)).toEqual(disks.map(({ path }) => path));
    expect(await vm.status()).toBe("running");
  });

  test("in the background is refused where QEMU or the VM's memory cannot do it", async () => {
    // A file on a disk file system: QEMU write-protects anonymous and tmpfs memory only.
    const ramPath = vms.file("ram");
    const vm = await vms.start({ ...countingSetup(binary, []), ramPath });
    const settings = await settingsOf(vm.qmp);
    expect(await snapshot(vm, []).failure()).toMatchObject({
      code: "QEMU_UNSUPPORTED",
      status: 7,
      message: expect.stringMatching(
        binary.major > 7 ? /not compatible with guest memory.*use --live$/ : /freezes the guest.*use --live$/,
      ),
    });
    expect(await settingsOf(vm.qmp)).toEqual(settings);
    expect(await vm.status()).toBe("running");
    await snapshot(vm, ["--live"]).success();
  });
});
