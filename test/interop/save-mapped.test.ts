import { writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { RamFile } from "../../src/demo/ram-file.ts";
import { inspect, restore, verify } from "../../src/index.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam } from "../support/dirty-ram.ts";
import { differingPages, FileLab, incoming, plainSettings } from "../support/file-lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { untilPass } from "../support/vms.ts";

const MIB = 2 ** 20;

/** A machine type that both QEMUs have. */
const OLD = "pc-q35-7.2";

describeBothQemus("our data path writes mapped-ram, and QEMU 10 loads it by itself", ({ seven, ten }) => {
  let lab: FileLab;
  beforeEach(async () => {
    lab = await FileLab.open();
  });
  afterEach(() => lab.close());

  const ramBytes = 64 * MIB;
  const sources = [
    { name: "7.2, 4 channels", binary: seven, machine: OLD, channels: 4 },
    { name: "7.2, no channels", binary: seven, machine: OLD, channels: 0 },
    { name: "7.2, zlib", binary: seven, machine: OLD, channels: 2, compression: "zlib" },
    { name: "10, 4 channels", binary: ten, channels: 4 },
    { name: "10, no channels", binary: ten, channels: 0 },
    { name: "10, an old machine type, zstd", binary: ten, machine: OLD, channels: 3, compression: "zstd" },
    { name: "10, 64 channels", binary: ten, channels: 64 },
  ] as const;
  const loads = [
    [0, false],
    [3, false],
    [4, true],
  ] as const;
  for (const [number, { name, binary, channels, ...more }] of sources.entries()) {
    test(`from ${name}`, async () => {
      const image = lab.file("vm.mr");
      const machine = "machine" in more ? { machine: more.machine } : {};
      const source = await lab.source({ binary, ramBytes, ...machine });
      const saved = await lab.lab.save(
        source,
        { channels, ...("compression" in more ? { compression: more.compression } : {}) },
        { image, format: "mapped-ram", workers: 2 },
      );
      expect(saved.image).toMatchObject({ format: "mapped-ram", multifdChannels: 0 });
      expect(await verify({ image, workers: 2 })).toMatchObject({ checked: "checksums and structure" });
      expect(await inspect({ image })).toMatchObject({ format: "mapped-ram", sealed: true });
      const [threads, directIo] = loads[number % loads.length] as (typeof loads)[number];
      const plain = await lab.destination({ binary: ten, ramBytes, ...machine });
      await incoming(plain.vm, plainSettings(threads, directIo), `file:${image}`);
      expect(await differingPages(source, plain)).toBe(0);
    });
  }

  test("through channels it comes back into 7.2, which cannot read the format, and into 10", async () => {
    const image = lab.file("vm.mr");
    const setup = { binary: seven, ramBytes: ramBytes / 2, machine: OLD };
    const source = await lab.source(setup);
    await lab.lab.save(source, { channels: 4 }, { image, format: "mapped-ram" });
    for (const [binary, channels] of [
      [seven, 2],
      [ten, 8],
    ] as const) {
      const call: typeof restore = (options) => restore({ ...options, channels });
      const restored = await lab.lab.restore({ ...setup, binary }, { channels }, image, call);
      expect(await differingPages(source, restored)).toBe(0);
    }
  });

  for (const [name, binary, channels] of [
    ["7.2", seven, 4],
    ["7.2 with 64 channels", seven, 64],
    ["10", ten, 64],
  ] as const) {
    test(`a guest that dirties its memory all the time, saved while it runs: ${name}`, async () => {
      const image = lab.file("vm.mr");
      const walked = { start: MIB, end: ramBytes };
      const bootDisk = lab.file("disk");
      await writeFile(bootDisk, dirtierDisk(walked));
      const booted = { ramBytes, bootDisk, machine: OLD, accelerator: "tcg" } as const;
      const source = await lab.source({ binary, ...booted });
      await source.vm.qmp.execute("cont");
      await untilPass(source.ram as RamFile, walked, 2);
      await lab.lab.save(source, { channels, livePasses: 3 }, { image, format: "mapped-ram", workers: 2 });
      await verify({ image });
      const plain = await lab.destination({ binary: ten, ...booted });
      await incoming(plain.vm, plainSettings(4, true), `file:${image}`);
      expect(await differingPages(source, plain)).toBe(0);
      expect((await checkDirtyRam(plain.ram?.path as string, walked)).violations).toBe(0);
    });
  }
});
