import { Buffer } from "node:buffer";
import { copyFile, open, readFile, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodeLibvirtHeader, HEADER_BYTES } from "../../src/formats/libvirt/header.ts";
import { type CompletedEvent, inspect, type RestoreOptions, restore } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { differingPages, FileLab, plainSettings, set } from "../support/file-lab.ts";
import { startIncoming } from "../support/incoming.ts";
import { configure, type Guest } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { useVms } from "../support/vms.ts";

const MIB = 2 ** 20;
const RAM = 128 * MIB;
const PAGE = 4096;
const OLD = "pc-q35-7.2";

describeBothQemus("a mapped-ram image goes through channels that are made up for it", ({ seven, ten }) => {
  const vms = useVms();
  let lab: FileLab;
  let source: Guest;
  let old: Guest;
  /** QEMU's own file, the same sealed, and one of an old machine type. */
  let [foreign, sealed, oldMachine] = ["", "", ""];
  let sockets = 0;

  beforeAll(async () => {
    lab = await FileLab.open();
    [foreign, sealed, oldMachine] = ["foreign", "sealed", "old"].map((name) => lab.file(name)) as [
      string,
      string,
      string,
    ];
    const guest = await lab.source({ binary: ten, ramBytes: RAM });
    source = guest;
    await lab.save(guest, { image: sealed, channels: 2 });
    // Without its trailer it is what QEMU alone writes.
    const report = await inspect({ image: sealed });
    const trailer = report.ranges.find(({ what }) => what === "map")?.offset as number;
    await copyFile(sealed, foreign);
    await cutPadding(foreign, trailer);
    old = await lab.source({ binary: ten, ramBytes: RAM, machine: OLD });
    await set(old.vm, plainSettings(2, false));
    await old.vm.qmp.execute("migrate", { uri: `file:${oldMachine}` });
    await waitMigration(old.vm.qmp, 60_000);
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

  test.each([
    ["7.2", 4],
    ["10", 4],
    ["10", 0],
  ])(
    "a flipped bit in a page is never sent, and QEMU %s ends cleanly, %i channels",
    async (version, channels) => {
      const image = lab.file(`flipped-${version}-${channels}`);
      const guest = await lab.source({ binary: ten, ramBytes: RAM, machine: OLD });
      await lab.save(guest, { image, channels: 2 });
      const { ranges } = await inspect({ image });
      const mem = ranges.find(({ what }) => what === "pages of ram")?.offset as number;
      const bytes = await readFile(guest.ram?.path as string);
      // The last page that is not zero: most of the others are on their way by then.
      let page = RAM / PAGE - 1;
      while (bytes.subarray(page * PAGE, (page + 1) * PAGE).every((byte) => byte === 0)) page--;
      const handle = await open(image, "r+");
      const damaged = bytes.subarray(page * PAGE, page * PAGE + 1).map((byte) => byte ^ 1);
      await handle.write(damaged, 0, 1, mem + page * PAGE);
      await handle.close();
      const binary = version === "10" ? ten : seven;
      const { address, monitor, vm } = await startIncoming(
        vms,
        binary,
        { channels },
        { ramBytes: RAM, machine: OLD },
      );
      const run = restore({ image, connect: address, channels, rate: 200 * MIB });
      await expect(run).rejects.toMatchObject({ code: "IMAGE_DAMAGED", exitStatus: 4 });
      await monitor.expectCleanEnd(`${version}, ${channels} channels, ${vm.pid}`);
    },
  );
});
