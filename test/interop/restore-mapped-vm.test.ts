import { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createRamFile, type RamFile } from "../../src/demo/ram-file.ts";
import { compareFiles, fillRam } from "../../src/demo/ram-pattern.ts";
import { encodeLibvirtHeader } from "../../src/formats/libvirt/header.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { pickAccelerator } from "../support/accelerator.ts";
import { plainSettings, set } from "../support/file-lab.ts";
import { useHelpers } from "../support/helper-process.ts";
import { type OperatorVm, type OperatorVmOptions, useOperatorVms } from "../support/operator-vm.ts";
import { describeBothQemus } from "../support/qemus.ts";

const RAM = 64 * 2 ** 20;
const UUID = "00112233-4455-6677-8899-aabbccddeeff";

describeBothQemus("a mapped-ram image into a QEMU that is driven", ({ seven, ten }) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  const image = (): string => vms.file("vm.mr");
  let [source, destination]: RamFile[] = [];

  beforeEach(async () => {
    [source, destination] = [await createRamFile(RAM), await createRamFile(RAM)];
    await fillRam(source.path, RAM, 8);
  });
  afterEach(() => Promise.all([source?.close(), destination?.close()]));

  async function vm(
    binary: QemuBinary,
    state: NonNullable<OperatorVmOptions["start"]>,
    options: Partial<OperatorVmOptions> = {},
  ): Promise<OperatorVm> {
    const ramPath = (state === "incoming" ? destination : source)?.path as string;
    const accelerator = await pickAccelerator(binary);
    return vms.start({ binary, accelerator, ramBytes: RAM, ramPath, start: state, ...options });
  }

  async function expectArrived(into: OperatorVm): Promise<void> {
    const paths = [source, destination].map((ram) => ram?.path as string) as [string, string];
    expect(await compareFiles(...paths)).toMatchObject({ differing: 0 });
    expect(await into.status()).not.toBe("running");
  }

  test("one that QEMU 10 wrote into QEMU 7.2, whose RAM holds data", async () => {
    const options = { machine: "pc-q35-7.2", uuid: UUID };
    const saved = await vm(ten, "paused", options);
    await start(["save", image(), "--json", "--engine", "file", "--qmp", saved.monitorPath]).success();
    await writeFile(destination?.path as string, Buffer.alloc(RAM, 0xaa), { flag: "r+" });
    const into = await vm(seven, "incoming", options);
    const helper = start(["restore", image(), "--json", "--qmp", into.monitorPath, "--channels", "3"]);
    expect(await helper.success()).toMatchObject({ image: { format: "mapped-ram", vmUuid: UUID } });
    expect(helper.events.filter(({ event }) => event === "channel")).toHaveLength(4);
    await expectArrived(into);
  });

  test.each([
    ["through channels of ours", []],
    ["by QEMU itself", ["--engine", "file", "--channels", "2"]],
  ])("one that QEMU alone wrote, %s, with a word of warning", async (_how, args) => {
    const saved = await vm(ten, "paused", { uuid: UUID });
    await set(saved.process, plainSettings(2, false));
    await saved.qmp.execute("migrate", { uri: `file:${image()}` });
    await waitMigration(saved.qmp, 60_000);
    const into = await vm(ten, "incoming", { uuid: UUID });
    const helper = start(["restore", image(), "--json", "--qmp", into.monitorPath, ...args]);
    expect(await helper.success()).toMatchObject({ image: { format: "mapped-ram", uuid: null } });
    expect(helper.stderr).toMatch(/no seal .* nothing is checksummed/);
    await expectArrived(into);
  });

  test("libvirt's file: its UUID is compared, and the VM runs as libvirt's did", async () => {
    const xml = Buffer.from(`<domain><uuid>${UUID}</uuid></domain>\0`);
    const header = encodeLibvirtHeader({
      ...{ complete: true, running: true, format: "sparse", cookieOffset: null },
      dataLength: xml.length,
    });
    await writeFile(image(), Buffer.concat([header, xml]));
    const saved = await vm(ten, "paused", { uuid: UUID });
    await set(saved.process, plainSettings(0, false));
    await saved.qmp.execute("migrate", { uri: `file:${image()},offset=${header.length + xml.length}` });
    await waitMigration(saved.qmp, 60_000);
    const other = await vm(ten, "incoming", { uuid: UUID.replace("0", "1") });
    const refused = start(["restore", image(), "--json", "--qmp", other.monitorPath]);
    expect(await refused.failure()).toMatchObject({ code: "VM_MISMATCH", status: 4 });
    const into = await vm(ten, "incoming", { uuid: UUID });
    const helper = start(["restore", image(), "--json", "--qmp", into.monitorPath]);
    expect(await helper.success()).toMatchObject({ image: { format: "mapped-ram", vmUuid: UUID } });
    expect(await into.status()).toBe("running");
  });
});
