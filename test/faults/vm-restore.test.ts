import { appendFile, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, expect, test } from "vitest";
import { createRamFile } from "../../src/demo/ram-file.ts";
import { fillRam } from "../../src/demo/ram-pattern.ts";
import { inspect, saveVm } from "../../src/index.ts";
import { startQemu } from "../../src/vm/qemu-process.ts";
import { exampleImage } from "../support/example-image.ts";
import { type HelperProcess, useHelpers } from "../support/helper-process.ts";
import { type OperatorVmOptions, operatorArgs, useOperatorVms } from "../support/operator-vm.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { runWell } from "../support/run.ts";
import { useScratch } from "../support/scratch.ts";
import { SerialLog } from "../support/serial-log.ts";

const RAM = 64 * 2 ** 20;
const scratch = useScratch();
const startAlone = useHelpers();

describeEachQemu("a restore into a QEMU of ours that fails leaves no QEMU and no changed image", (binary) => {
  const vms = useOperatorVms();
  const start = useHelpers();
  let directory: string;
  let options: OperatorVmOptions;
  let serial: readonly string[];
  let saved: string;
  let checksum: string;
  const image = (): string => join(directory, "vm.mfd");
  const disk = (): string => join(directory, "disk.raw");
  /** What a restore may change, and how it was. */
  const copies = (): string[][] => [image(), disk()].map((path) => [`${path}.saved`, path]);

  /** Saved once: each test gets the image, and the disk with the times that it had, at their paths. */
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), "mfd-vm-"));
    const ram = await createRamFile(RAM);
    await fillRam(ram.path, RAM, 3);
    await writeFile(disk(), Buffer.alloc(2 ** 20));
    const { args } = new SerialLog(join(directory, "saved.serial"));
    const guest = { binary, ramBytes: RAM, disks: [{ path: disk() }], ramPath: ram.path } as const;
    const monitor = join(directory, "qmp");
    const vm = await startQemu({
      binary,
      args: [
        ...operatorArgs({ ...guest, start: "paused" }),
        ...args,
        "-qmp",
        `unix:${monitor},server=on,wait=off`,
      ],
    });
    await saveVm({ image: image(), vm: { qmp: monitor }, checksum: "crc32" });
    await vm.kill();
    await ram.close();
    saved = await sha256(image());
    for (const [copy = "", path = ""] of copies()) await runWell("cp", ["-p", path, copy]);
  });
  afterAll(() => rm(directory, { recursive: true }));

  beforeEach(async () => {
    for (const [copy = "", path = ""] of copies()) await runWell("cp", ["-p", copy, path]);
    checksum = saved;
    serial = new SerialLog(vms.file("serial")).args;
    // The destination's RAM is of the same name, and fresh: a directory is where QEMU makes a file without a name.
    options = { binary, ramBytes: RAM, disks: [{ path: disk() }], ramPath: "/dev/shm" };
  });

  function restore(args: readonly string[] = [], qemuArgs: readonly string[] = []): HelperProcess {
    const command = [binary.path, ...operatorArgs(options), ...serial, ...qemuArgs];
    return start(["restore", image(), "--json", ...args, "--", ...command]);
  }

  async function expectNothingLeft(): Promise<void> {
    await expect.poll(() => qemusWith(serial.join(" ")), { timeout: 10_000 }).toEqual([]);
    expect(await sha256(image())).toBe(checksum);
  }

  async function untilMoving(helper: HelperProcess): Promise<void> {
    await helper.waitEvent("progress", ({ bytes }) => Number(bytes) > 2 ** 20);
  }

  test("a damaged block", async () => {
    const { ranges } = await inspect({ image: image() });
    const at = ranges.find(({ what }) => what === "channel 0") as { offset: number; length: number };
    await flip(image(), at.offset + Math.floor(at.length / 2));
    checksum = await sha256(image());
    expect(await restore().failure()).toMatchObject({ code: "IMAGE_DAMAGED", status: 4 });
    await expectNothingLeft();
  });

  test("SIGTERM in the middle", async () => {
    const helper = restore(["--rate", "10M"]);
    await untilMoving(helper);
    helper.signal("SIGTERM");
    expect(await helper.failure()).toMatchObject({ code: "CANCELLED", status: 143 });
    await expectNothingLeft();
  });

  test("SIGKILL in the middle", async () => {
    const helper = restore(["--rate", "10M"]);
    await untilMoving(helper);
    await helper.kill();
    await expectNothingLeft();
  });

  test("QEMU is killed in the middle", async () => {
    const helper = restore(["--rate", "10M"]);
    await untilMoving(helper);
    const qemus = await qemusWith(serial.join(" "));
    expect(qemus).toHaveLength(1);
    for (const pid of qemus) process.kill(pid, "SIGKILL");
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    await expectNothingLeft();
  });

  test("QEMU itself refuses the image: its words are the reason", async () => {
    options = { ...options, machine: "pc" };
    expect(await restore().failure()).toMatchObject({
      code: "VM_MISMATCH",
      message: expect.stringMatching(/its machine type is pc-i440fx\S+ and was pc-q35/),
    });
    const helper = restore(["--force"]);
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    expect(helper.stderr).toMatch(/Machine type received is 'pc-q35/);
    await expectNothingLeft();
  });

  test("the disk was written since the save: refused before anything is loaded, unless --force", async () => {
    const unchanged = restore(["--paused"]);
    await unchanged.waitEvent("completed");
    unchanged.signal("SIGTERM");
    expect(await unchanged.exit()).toBe(0);
    await appendFile(disk(), Buffer.alloc(512));
    expect(await restore().failure()).toMatchObject({
      code: "DISK_CHANGED",
      status: 4,
      message: expect.stringContaining(`${disk()} had 1048576 bytes and has 1049088`),
    });
    await expectNothingLeft();
    const forced = restore(["--force"]);
    await forced.waitEvent("completed");
    forced.signal("SIGTERM");
    expect(await forced.exit()).toBe(0);
  });

  test("a QEMU that does not start", async () => {
    const helper = restore([], ["-device", "there-is-no-such-device"]);
    expect(await helper.failure()).toMatchObject({ code: "QEMU_FAILED", status: 7 });
    expect(helper.stderr).toContain("there-is-no-such-device");
    const missing = start(["restore", image(), "--json", "--", vms.file("no-qemu"), "-m", "64M"]);
    expect(await missing.failure()).toMatchObject({ code: "QEMU_MISSING", status: 7 });
    await expectNothingLeft();
  });

  test("a QEMU that does not wait for an image, or has waited once already", async () => {
    const running = await vms.start(options);
    const into = (qmp: string): HelperProcess => start(["restore", image(), "--json", "--qmp", qmp]);
    expect(await into(running.monitorPath).failure()).toMatchObject({
      code: "VM_STATE",
      status: 7,
      message: expect.stringContaining("start it with -incoming defer -S"),
    });
    await running.process.kill();
    const used = await vms.start({ ...options, start: "incoming" });
    await used.qmp.execute("migrate-incoming", { uri: `unix:${vms.file("used")}` });
    expect(await into(used.monitorPath).failure()).toMatchObject({
      code: "VM_STATE",
      message: expect.stringContaining("start it anew"),
    });
  });
});

test.each([
  [["-incoming", "defer"], "-incoming must not be among QEMU's arguments"],
  [["-daemonize"], "-daemonize must not be among QEMU's arguments: use --detach"],
])("%s is refused", async (args, message) => {
  await writeFile(scratch.file("vm.mfd"), exampleImage().bytes);
  const helper = startAlone([
    "restore",
    scratch.file("vm.mfd"),
    "--json",
    "--",
    "qemu-system-x86_64",
    ...args,
  ]);
  expect(await helper.failure()).toMatchObject({ code: "USAGE", message: expect.stringContaining(message) });
});

/** Processes with this text among their arguments that are QEMUs. */
async function qemusWith(text: string): Promise<number[]> {
  const listed = await runWell("ps", ["-wweo", "pid=,args="]);
  return listed
    .split("\n")
    .filter((line) => line.includes(text) && /qemu-system\S* -/.test(line) && !line.includes("restore"))
    .map((line) => Number.parseInt(line, 10));
}

async function sha256(file: string): Promise<string> {
  return (await runWell("sha256sum", [file])).split(" ")[0] as string;
}

async function flip(path: string, at: number): Promise<void> {
  const file = await open(path, "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, at);
  byte.writeUInt8(byte.readUInt8(0) ^ 1, 0);
  await file.write(byte, 0, 1, at);
  await file.close();
}
