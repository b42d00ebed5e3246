import { describe, expect, test } from "vitest";
import { type Accelerator, pickAccelerator } from "../../src/demo/accelerator.ts";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { listenForMigration, migrateTo, setMultifd, waitMigration } from "../../src/vm/migration.ts";
import type { QemuProcess } from "../../src/vm/qemu-process.ts";
import { checkDirtyRam } from "../support/dirty-ram.ts";
import { describeBothQemus, describeEachQemu } from "../support/qemus.ts";
import { untilPass, useVms } from "../support/vms.ts";

const MIB = 2 ** 20;
const vms = useVms();

/** Multifd straight from one QEMU to the other: the reference for what a save and restore must equal. */
async function migrate(source: QemuProcess, destination: QemuProcess): Promise<void> {
  const uri = `unix:${destination.socketPath("migration")}`;
  for (const vm of [destination, source]) await setMultifd(vm.qmp, { channels: 2 });
  await listenForMigration(destination.qmp, uri);
  await migrateTo(source.qmp, uri);
  await waitMigration(source.qmp, 30_000);
  await waitMigration(destination.qmp, 30_000);
}

describeEachQemu("a running guest that dirties its RAM", (binary) => {
  async function dirties(accelerator: Accelerator): Promise<void> {
    const options = { ramBytes: 256 * MIB, accelerator };
    const { vm, ram, walked } = await vms.startDirtier(binary, options);

    await vm.qmp.execute("cont");
    await untilPass(ram, walked, 3);
    await vm.qmp.execute("stop");
    const first = await checkDirtyRam(ram.path, walked);
    expect(first).toMatchObject({ violations: 0, firstViolation: null });

    await vm.qmp.execute("cont");
    await untilPass(ram, walked, first.sequence + 3);
    await vm.qmp.execute("stop");
    const second = await checkDirtyRam(ram.path, walked);
    expect(second).toMatchObject({ violations: 0, firstViolation: null });
    expect(second.sequence).toBeGreaterThanOrEqual(first.sequence + 3);
  }

  test("under the accelerator that is picked here", async () => {
    await dirties(await pickAccelerator(binary));
  });

  test("under tcg, which every machine has", async () => {
    await dirties("tcg");
  });

  test("arrives whole while it runs, and runs on", async () => {
    const options = { ramBytes: 64 * MIB, accelerator: "tcg" } as const;
    const source = await vms.startDirtier(binary, options);
    const destination = await vms.startDirtier(binary, { ...options, incoming: true });
    // No guest this busy ever converges; a pause as long as needed ends it after the second iteration.
    await source.vm.qmp.execute("migrate-set-parameters", { "downtime-limit": 20_000 });
    await source.vm.qmp.execute("cont");
    await untilPass(source.ram, source.walked, 3);

    await migrate(source.vm, destination.vm);

    const arrived = await checkDirtyRam(destination.ram.path, destination.walked);
    expect(arrived).toMatchObject({ violations: 0, firstViolation: null });
    expect(await checkDirtyRam(source.ram.path, source.walked)).toEqual(arrived);
    await destination.vm.qmp.execute("cont");
    await untilPass(destination.ram, destination.walked, arrived.sequence + 2);
  });
});

describe("a migration of known RAM from QEMU to QEMU", () => {
  const ramBytes = 64 * MIB;

  async function migrates(from: QemuBinary, to: QemuBinary, machine: string): Promise<void> {
    const options = { ramBytes, machine, accelerator: "tcg" } as const;
    const source = await vms.start(from, options);
    const destination = await vms.start(to, { ...options, incoming: true });
    await fillRam(source.ram.path, ramBytes, 7);
    expect((await compareFiles(source.ram.path, destination.ram.path)).differing).toBeGreaterThan(8000);

    await migrate(source.vm, destination.vm);

    const equal = { pages: ramBytes / 4096, differing: 0, firstDifferingPage: null };
    expect(await compareFiles(source.ram.path, destination.ram.path)).toEqual(equal);
  }

  describeEachQemu("multifd between equals carries every page", (binary) => {
    test("2 channels", () => migrates(binary, binary, "q35"));
  });

  describeBothQemus("multifd between versions carries every page", ({ seven, ten }) => {
    test("from 7.2 to 10", () => migrates(seven, ten, "pc-q35-7.2"));
    test("from 10 to 7.2", () => migrates(ten, seven, "pc-q35-7.2"));
  });
});
