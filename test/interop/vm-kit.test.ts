import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type Accelerator, pickAccelerator } from "../../src/vm/accelerator.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { guestArgs } from "../../src/vm/guest.ts";
import { listenForMigration, migrateTo, setMultifd, waitMigration } from "../../src/vm/migration.ts";
import { type QemuProcess, startQemu } from "../../src/vm/qemu-process.ts";
import { createRamFile, type RamFile } from "../../src/vm/ram-file.ts";
import { compareFiles, fillRam } from "../../src/vm/ram-pattern.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam, currentPass } from "../support/dirty-ram.ts";
import { describeBothQemus, describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;
let vms: QemuProcess[] = [];
let files: RamFile[] = [];

afterEach(async () => {
  await Promise.all(vms.map((vm) => vm.kill()));
  await Promise.all(files.map((file) => file.close()));
  vms = [];
  files = [];
});

async function start(binary: QemuBinary, args: string[]): Promise<QemuProcess> {
  const vm = await startQemu({ binary, args });
  vms.push(vm);
  return vm;
}

async function ramFile(bytes: number): Promise<RamFile> {
  const file = await createRamFile(bytes);
  files.push(file);
  return file;
}

describeEachQemu("a running guest that dirties its RAM", (binary) => {
  const ramBytes = 256 * MIB;
  const walked = { start: MIB, end: ramBytes };
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "dirtier-"));
  });
  afterEach(() => rm(directory, { recursive: true }));

  async function dirties(accelerator: Accelerator): Promise<void> {
    const ram = await ramFile(ramBytes);
    const bootDisk = join(directory, "disk");
    await writeFile(bootDisk, dirtierDisk(walked));
    const memory = { kind: "file", path: ram.path } as const;
    const vm = await start(binary, guestArgs({ ramBytes, memory, accelerator, bootDisk }));

    await vm.qmp.execute("cont");
    await untilPass(ram.path, 3);
    await vm.qmp.execute("stop");
    const first = await checkDirtyRam(ram.path, walked);
    expect(first).toMatchObject({ violations: 0, firstViolation: null });

    await vm.qmp.execute("cont");
    await untilPass(ram.path, first.sequence + 3);
    await vm.qmp.execute("stop");
    const second = await checkDirtyRam(ram.path, walked);
    expect(second.violations).toBe(0);
    expect(second.sequence).toBeGreaterThanOrEqual(first.sequence + 3);
  }

  async function untilPass(path: string, pass: number): Promise<void> {
    const deadline = Date.now() + 30_000;
    while ((await currentPass(path, walked)) < pass) {
      if (Date.now() > deadline) throw new Error(`the guest has not reached pass ${pass}`);
      await sleep(20);
    }
  }

  test("under the accelerator that is picked here", async () => {
    await dirties(await pickAccelerator(binary));
  });

  test("under tcg, which every machine has", async () => {
    await dirties("tcg");
  });
});

describe("a migration from QEMU to QEMU", () => {
  const ramBytes = 64 * MIB;

  async function migrates(from: QemuBinary, to: QemuBinary, machine: string): Promise<void> {
    const [sourceRam, destinationRam] = [await ramFile(ramBytes), await ramFile(ramBytes)];
    await fillRam(sourceRam.path, ramBytes, 7);
    expect((await compareFiles(sourceRam.path, destinationRam.path)).differing).toBeGreaterThan(8000);
    const accelerator = "tcg";
    const options = { ramBytes, accelerator, machine } as const;
    const source = await start(
      from,
      guestArgs({ ...options, memory: { kind: "file", path: sourceRam.path } }),
    );
    const destination = await start(
      to,
      guestArgs({ ...options, memory: { kind: "file", path: destinationRam.path }, incoming: true }),
    );
    const uri = `unix:${destination.socketPath("migration")}`;

    for (const vm of [destination, source]) await setMultifd(vm.qmp, { channels: 2 });
    await listenForMigration(destination.qmp, uri);
    await migrateTo(source.qmp, uri);

    expect(await waitMigration(source.qmp, 30_000)).toMatchObject({ status: "completed" });
    expect(await waitMigration(destination.qmp, 30_000)).toMatchObject({ status: "completed" });
    expect(await compareFiles(sourceRam.path, destinationRam.path)).toEqual({
      pages: ramBytes / 4096,
      differing: 0,
      firstDifferingPage: null,
    });
  }

  describeEachQemu("multifd between equals carries every page", (binary) => {
    test("2 channels", () => migrates(binary, binary, "q35"));
  });

  describeBothQemus("multifd between versions", ({ seven, ten }) => {
    test("from 7.2 to 10", () => migrates(seven, ten, "pc-q35-7.2"));
    test("from 10 to 7.2", () => migrates(ten, seven, "pc-q35-7.2"));
  });
});

describeEachQemu("a QEMU of ours", (binary) => {
  const args = guestArgs({ ramBytes: 64 * MIB, memory: { kind: "anonymous" }, accelerator: "tcg" });

  test("says which version it is, quits when asked and takes its directory along", async () => {
    const vm = await start(binary, args);
    const { major, minor, micro } = vm.qmp.version;
    expect(`${major}.${minor}.${micro}`).toBe(binary.version);
    expect(await vm.quit()).toEqual({ code: 0, signal: null });
    await expect(access(vm.directory)).rejects.toThrow("ENOENT");
  });

  test("that refuses its arguments is an error with its own words", async () => {
    await expect(start(binary, [...args, "-device", "flux-capacitor"])).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("'flux-capacitor' is not a valid device model name"),
    });
  });

  test("that dies explains what was asked of it last", async () => {
    const vm = await start(binary, args);
    process.kill(vm.pid, "SIGKILL");
    await expect(vm.qmp.waitEvent(() => false, 10_000)).rejects.toMatchObject({
      code: "QEMU_FAILED",
      message: expect.stringContaining("was ended by SIGKILL"),
    });
  });

  test("a failed migration is an error with QEMU's reason", async () => {
    const vm = await start(binary, args);
    await setMultifd(vm.qmp, { channels: 2 });
    const toNowhere = migrateTo(vm.qmp, `unix:${vm.socketPath("nobody")}`).then(() =>
      waitMigration(vm.qmp, 10_000),
    );
    await expect(toNowhere).rejects.toMatchObject({ code: "QEMU_FAILED", message: /Failed to connect/ });
  });
});
