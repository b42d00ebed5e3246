import { Buffer } from "node:buffer";
import { copyFile, open, readFile, writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodeLibvirtHeader, HEADER_BYTES } from "../../src/formats/libvirt/header.ts";
import { type CompletedEvent, inspect, type RestoreOptions, restore } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { useCli } from "../support/cli-run.ts";
import { differingPages, type FileGuest, FileLab, plainSettings, set } from "../support/file-lab.ts";
import { Monitor } from "../support/incoming.ts";
import { inspectMapped } from "../support/inspecting.ts";
import { configure, type Guest } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
const PAGE = 4096;
const OLD = "pc-q35-7.2";

describeBothQemus("a mapped-ram image goes through channels that are made up for it", ({ seven, ten }) => {
  const cli = useCli();
  let lab: FileLab;
  let source: FileGuest;
  let old: FileGuest;
  /** QEMU's own file, the same sealed, and a sealed one of an old machine type. */
  let [foreign, sealed, oldMachine] = ["", "", ""];
  let sockets = 0;

  beforeAll(async () => {
    lab = await FileLab.open();
    [foreign, sealed, oldMachine] = ["foreign", "sealed", "old"].map((name) => lab.file(name)) as [
      string,
      string,
      string,
    ];
    source = await lab.source({ binary: ten, ramBytes: RAM });
    await lab.save(source, { image: sealed, channels: 2 });
    // Without its trailer it is what QEMU alone writes.
    const report = await inspect({ image: sealed });
    const trailer = report.ranges.find(({ what }) => what === "map")?.offset as number;
    await copyFile(sealed, foreign);
    await cutPadding(foreign, trailer);
    old = await lab.source({ binary: ten, ramBytes: RAM, machine: OLD });
    await lab.save(old, { image: oldMachine, channels: 2 });
  });
  afterAll(() => lab.close());

  /** What lies between QEMU's end and our trailer is zero: the stream ends with the brace that closes its description. */
  async function cutPadding(file: string, trailer: number): Promise<void> {
    const handle = await open(file, "r+");
    const last = Buffer.alloc(PAGE);
    await handle.read(last, 0, PAGE, trailer - PAGE);
    await handle.truncate(trailer - PAGE + last.lastIndexOf("}") + 1);
    await handle.close();
  }

  interface Way {
    readonly binary: QemuBinary;
    readonly machine?: string;
    readonly channels: number;
    /** What the destination's RAM is filled with beforehand; 0 if absent. */
    readonly fill?: number;
  }

  /** Restores into a new QEMU, and answers how many pages of its RAM are not the source's. */
  async function restored(
    from: Guest,
    { binary, machine, channels, fill }: Way,
    options: Omit<RestoreOptions, "connect" | "channels">,
  ): Promise<{ differing: number; completed: CompletedEvent }> {
    const setup = { binary, ramBytes: RAM, ...(machine === undefined ? {} : { machine }) };
    const { vm, ram } = await lab.lab.waiting(setup);
    if (fill !== undefined) await writeFile(ram?.path as string, Buffer.alloc(RAM, fill), { flag: "r+" });
    await configure(vm, { channels });
    const address = `unix:${lab.file(`in-${sockets++}`)}`;
    await vm.qmp.execute("migrate-incoming", { uri: address });
    const completed = await restore({ workers: 2, ...options, channels, connect: address });
    await waitMigration(vm.qmp, 60_000);
    const differing = await differingPages(from, { vm, ram });
    await vm.quit();
    return { differing, completed };
  }

  test.each([1, 3, 8, 64, 0])("QEMU's own file, %i channels, over RAM that is not zero", async (channels) => {
    const { differing, completed } = await restored(
      source,
      { binary: ten, channels, fill: 0xaa },
      { image: foreign },
    );
    expect(differing).toBe(0);
    expect(completed.image).toMatchObject({ format: "mapped-ram", uuid: null });
    // What was announced is what was sent.
    expect(completed.channels.reduce((sum, { bytes }) => sum + bytes, 0)).toBe(completed.bytes);
  });

  test.each([4, 0])("a sealed one, verified first, into zeroed RAM, %i channels", async (channels) => {
    const way = { binary: ten, channels };
    const all = await restored(source, way, { image: sealed });
    const options = { image: sealed, zeroedRam: true, verify: "first" } as const;
    const fewer = await restored(source, way, options);
    expect([all.differing, fewer.differing]).toEqual([0, 0]);
    expect(all.completed.bytes).toBeGreaterThan(fewer.completed.bytes);
  });

  test.each([
    ["7.2", 2],
    ["7.2", 4],
    ["7.2", 0],
    ["10", 3],
  ])("an old machine type, saved by QEMU 10, restored by %s with %i channels", async (version, channels) => {
    const binary = version === "10" ? ten : seven;
    const way = { binary, machine: OLD, channels, fill: 0xaa };
    expect(await restored(old, way, { image: oldMachine })).toMatchObject({ differing: 0 });
  });

  test("libvirt's file, whose stream begins at no round number", async () => {
    const image = lab.file("libvirt");
    const uuid = "00112233-4455-6677-8899-aabbccddeeff";
    const xml = Buffer.from(`<domain><uuid>${uuid}</uuid></domain>\0`);
    const header = encodeLibvirtHeader({
      ...{ complete: true, running: false, format: "sparse", cookieOffset: null },
      dataLength: xml.length,
    });
    await writeFile(image, Buffer.concat([header, xml]));
    const guest = await lab.source({ binary: ten, ramBytes: RAM, extraArgs: ["-uuid", uuid] });
    await set(guest.vm, plainSettings(0, false));
    const offset = HEADER_BYTES + xml.length;
    await guest.vm.qmp.execute("migrate", { uri: `file:${image},offset=${offset}` });
    await waitMigration(guest.vm.qmp, 60_000);
    for (const options of [{ image }, { image, offset, uuid }]) {
      const { vm, ram } = await lab.lab.waiting({
        ...{ binary: ten, ramBytes: RAM, extraArgs: ["-uuid", uuid] },
      });
      await configure(vm, { channels: 2 });
      const address = `unix:${lab.file(`in-${sockets++}`)}`;
      await vm.qmp.execute("migrate-incoming", { uri: address });
      await restore({ ...options, channels: 2, connect: address });
      await waitMigration(vm.qmp, 60_000);
      expect(await differingPages(guest, { vm, ram })).toBe(0);
    }
    const handle = await open(image, "r+");
    await handle.write("LibvirtQemudPart", 0);
    await handle.close();
    const unfinished = restore({ image, connect: `unix:${lab.file("nobody")}` });
    await expect(unfinished).rejects.toMatchObject({ code: "NOT_SEALED" });
  });

  /** A QEMU that waits for the guest of the old machine type. */
  async function waiting(version: string, channels: number): Promise<Waiting> {
    const binary = version === "10" ? ten : seven;
    const guest = await lab.lab.waiting({ binary, ramBytes: RAM, machine: OLD });
    await configure(guest.vm, { channels });
    const address = `unix:${lab.file(`in-${sockets++}`)}`;
    await guest.vm.qmp.execute("migrate-incoming", { uri: address });
    return { ...guest, address, monitor: new Monitor(guest.vm) };
  }

  test.each([
    ["7.2", 4],
    ["10", 4],
    ["10", 0],
  ])("a flipped bit never gets to QEMU %s, which ends cleanly, %i channels", async (version, channels) => {
    const image = lab.file(`flipped-${version}-${channels}`);
    await copyFile(oldMachine, image);
    const offset = (await inspectMapped(image)).blocks.find(({ name }) => name === "ram")?.pagesOffset ?? 0;
    const bytes = await readFile(old.ram?.path as string);
    // The last page that is not zero: most of the others are on their way by then.
    let page = RAM - PAGE;
    while (bytes.subarray(page, page + PAGE).every((byte) => byte === 0)) page -= PAGE;
    const handle = await open(image, "r+");
    await handle.write(Buffer.from([bytes.readUInt8(page) ^ 1]), 0, 1, offset + page);
    await handle.close();
    const { address, monitor, ram } = await waiting(version, channels);
    const run = restore({ image, connect: address, channels, rate: 200 * MIB });
    await expect(run).rejects.toMatchObject({ code: "IMAGE_DAMAGED", exitStatus: 4 });
    await monitor.expectCleanEnd(`${version}, ${channels} channels`);
    const arrived = (await readFile(ram?.path as string)).subarray(page, page + PAGE);
    expect(arrived.equals(Buffer.alloc(PAGE))).toBe(true);
  });

  test.each(["7.2", "10"])("QEMU %s with fewer channels never takes what it got for all", async (version) => {
    const { address, vm, monitor } = await waiting(version, 2);
    await expect(restore({ image: oldMachine, connect: address, channels: 4 })).rejects.toMatchObject({
      exitStatus: 3,
    });
    await monitor.expectCleanEnd(`QEMU ${version}: ${vm.stderr}`);
  });

  test.each([
    ["7.2", "SIGTERM"],
    ["7.2", "SIGKILL"],
    ["10", "SIGTERM"],
    ["10", "SIGKILL"],
  ] as const)("QEMU %s ends cleanly when the helper is ended by %s half-way", async (version, signal) => {
    const random = seededRandom();
    const { address, monitor } = await waiting(version, 4);
    const args = ["restore", oldMachine, "--connect", address, "--rate", `${50 * MIB}`];
    const run = cli(args);
    await run.until(({ event, channel }) => event === "channel" && channel === 3);
    const waitMs = random.integer(500);
    await sleep(waitMs);
    run.kill(signal);
    await run.finished;
    await monitor.expectCleanEnd(`after ${waitMs} ms, TEST_SEED=${random.seed}`);
  });
});

interface Waiting extends Guest {
  readonly address: string;
  readonly monitor: Monitor;
}
