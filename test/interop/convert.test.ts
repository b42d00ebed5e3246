import { execFile } from "node:child_process";
import { readFile, stat, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { convert, diff, extract, inspect, verify } from "../../src/index.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { counterByMonitor, countingDisk } from "../support/counting-guest.ts";
import { differingPages, FileLab, incoming, plainSettings } from "../support/file-lab.ts";
import { useHelpers } from "../support/helper-process.ts";
import { useOperatorVms } from "../support/operator-vm.ts";
import { describeBothQemus } from "../support/qemus.ts";

const MIB = 2 ** 20;
/** A machine type that both QEMUs have. */
const OLD = "pc-q35-7.2";
const vms = useOperatorVms();
const start = useHelpers();
const XML = `<domain type='kvm'><name>web</name><memory unit='KiB'>32768</memory></domain>`;

describeBothQemus("a saved VM of one kind becomes one of another", ({ seven, ten }) => {
  let lab: FileLab;
  beforeEach(async () => {
    lab = await FileLab.open();
  });
  afterEach(() => lab.close());
  const old = { binary: seven, ramBytes: 32 * MIB, machine: OLD };
  const now = { ...old, binary: ten };

  test("streams of 7.2 to mapped-ram, which 10 loads; and back to streams with other channels, for 7.2", async () => {
    const source = await lab.source(old);
    await lab.lab.save(source, { channels: 3 }, { image: lab.file("a.mfd"), meta: { k: "v" } });
    const made = await convert({ image: lab.file("a.mfd"), output: lab.file("a.mr"), format: "mapped-ram" });
    expect(made.image).toMatchObject({ path: lab.file("a.mr"), format: "mapped-ram" });
    const mapped = await lab.destination(now);
    await incoming(mapped.vm, plainSettings(2, true), `file:${lab.file("a.mr")}`);
    expect(await differingPages(source, mapped)).toBe(0);

    await convert({ image: lab.file("a.mr"), output: lab.file("b.mfd"), format: "stream", channels: 2 });
    expect(await inspect({ image: lab.file("b.mfd") })).toMatchObject({
      format: "stream",
      metadata: { multifdChannels: 2, user: { k: "v" }, barrierMode: "legacy", machine: OLD },
    });
    await verify({ image: lab.file("b.mfd") });
    const again = await lab.lab.restore(old, { channels: 2 }, lab.file("b.mfd"));
    expect(await differingPages(source, again)).toBe(0);
    expect(await diff({ image: lab.file("a.mfd"), other: lab.file("b.mfd") })).toMatchObject({
      differing: 0,
      unmatched: [],
    });
  });

  test("compressed streams to streams of another number, by way of a copy", async () => {
    const source = await lab.source(now);
    await lab.lab.save(source, { channels: 4, compression: "zlib" }, { image: lab.file("a.mfd") });
    await convert({ image: lab.file("a.mfd"), output: lab.file("b.mfd"), format: "stream", channels: 1 });
    const again = await lab.lab.restore(now, { channels: 1 }, lab.file("b.mfd"));
    expect(await differingPages(source, again)).toBe(0);
  });

  test.each([
    ["7.2", seven],
    ["10", ten],
  ])("streams of a guest that ran while %s saved it: of each page the newest", async (_, binary) => {
    await writeFile(vms.file("disk"), countingDisk({ lineEvery: 16 }));
    const setup = { binary, ramBytes: 64 * MIB, disks: [{ path: vms.file("disk") }] };
    const saved = await vms.start(setup);
    await saved.serial.waitForLine(/^count 00000080$/);
    const [image, output] = [vms.file("a.mfd"), vms.file("b.mfd")];
    const live = ["--live", "--then", "pause"];
    await start(["save", image, "--json", "--qmp", saved.monitorPath, ...live]).success();
    const count = await counterByMonitor(saved.qmp);
    await saved.process.quit();

    await convert({ image, output, format: "stream", channels: 3 });
    const restored = await vms.start({ ...setup, start: "incoming" });
    await start(["restore", output, "--json", "--qmp", restored.monitorPath, "--paused"]).success();
    expect(await counterByMonitor(restored.qmp)).toBe(count);
  });

  test("what exec:cat and a single channel leave, to mapped-ram; and to an image of libvirt", async () => {
    const source = await lab.source(old);
    const raw = lab.file("raw");
    await source.vm.qmp.execute("migrate", { uri: `exec:cat > ${raw}` });
    await waitMigration(source.vm.qmp, 60_000);
    await convert({ image: raw, output: lab.file("a.mr"), format: "mapped-ram" });
    expect(await verify({ image: lab.file("a.mr") })).toMatchObject({ checked: "checksums and structure" });
    await convert({ image: raw, output: lab.file("l.save"), format: "libvirt", xml: XML, running: true });
    const report = await inspect({ image: lab.file("l.save") });
    expect(report).toMatchObject({
      format: "libvirt",
      complete: true,
      running: true,
      imageFormat: "raw",
      xml: XML,
    });
    const { streamOffset } = report as { streamOffset: number };
    expect((await readFile(lab.file("l.save"))).subarray(streamOffset).equals(await readFile(raw))).toBe(
      true,
    );

    await convert({ image: lab.file("a.mr"), output: lab.file("m.save"), format: "libvirt", xml: XML });
    await convert({ image: lab.file("m.save"), output: lab.file("b.mr"), format: "mapped-ram" });
    for (const [image, how] of [
      [lab.file("a.mr"), plainSettings(4, true)],
      [lab.file("b.mr"), plainSettings(0, false)],
    ] as const) {
      const loaded = await lab.destination(now);
      await incoming(loaded.vm, how, `file:${image}`);
      expect(await differingPages(source, loaded)).toBe(0);
    }
    // The stream behind libvirt's header, as libvirt gives it to QEMU.
    const plain = await lab.destination(old);
    await plain.vm.qmp.execute("migrate-incoming", {
      uri: `exec:tail -c +${(((await inspect({ image: lab.file("m.save") })) as { streamOffset: number }).streamOffset ?? 0) + 1} ${lab.file("m.save")}`,
    });
    await waitMigration(plain.vm.qmp, 60_000);
    expect(await differingPages(source, plain)).toBe(0);
  });

  test.each([
    ["mapped-ram", undefined],
    ["stream", 4],
  ] as const)(
    "a single stream of a newer machine type, to %s, which 10 takes through channels",
    async (format, channels) => {
      const setup = { ...now, machine: "q35" };
      const source = await lab.source(setup);
      await lab.lab.save(source, { channels: 0 }, { image: lab.file("a.mfd") });
      const made = { output: lab.file("b"), format, channels };
      await convert({ image: lab.file("a.mfd"), ...made });
      // Not "legacy": 10 would wait for barriers that never come.
      expect(await inspect({ image: lab.file("b") })).toMatchObject({
        metadata: { barrierMode: format === "stream" ? "modern" : null },
      });
      const again = await lab.lab.restore(setup, { channels: 4 }, lab.file("b"));
      expect(await differingPages(source, again)).toBe(0);
    },
  );

  test("a RAMBlock is taken out of any kind, bit for bit", async () => {
    const source = await lab.source(now);
    await lab.lab.save(source, { channels: 2 }, { image: lab.file("a.mfd") });
    await convert({ image: lab.file("a.mfd"), output: lab.file("a.mr"), format: "mapped-ram" });
    for (const image of ["a.mfd", "a.mr"]) {
      await writeFile(lab.file("ram"), Buffer.alloc(MIB, 0xff));
      const { bytes } = (await extract({ image: lab.file(image), output: lab.file("ram"), block: "ram" }))
        .image;
      expect(bytes).toBe(32 * MIB);
      await promisify(execFile)("cmp", [lab.file("ram"), source.ram?.path as string]);
      expect((await stat(lab.file("ram"))).size).toBe(32 * MIB);
    }
  });
});
