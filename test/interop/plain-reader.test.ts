import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { RamFile } from "../../src/demo/ram-file.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { FileLab, migrate, plainSettings } from "../support/file-lab.ts";
import type { Channels, Guest, GuestSetup } from "../support/lab.ts";
import { type MappedFile, readMappedFile } from "../support/plain-reader/mapped-file.ts";
import { type Applied, applyStreams } from "../support/plain-reader/streams.ts";
import { readTrailer } from "../support/plain-reader/trailer.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { findRepoRoot } from "../support/repo.ts";
import { readBySpec } from "../support/spec-reader.ts";
import { untilPass } from "../support/vms.ts";

const MIB = 2 ** 20;
const RAM_BYTES = 32 * MIB;
const page = readFileSync(path.join(findRepoRoot(), "docs/formats/image.md"), "utf8");

/*
 * The tests' own readers are held against real QEMUs, so that they may judge what the product makes of made-up
 * migrations.
 */
describeBothQemus("the plain readers find the guest's RAM", ({ seven, ten }) => {
  let lab: FileLab;
  beforeEach(async () => {
    lab = await FileLab.open();
  });
  afterEach(() => lab.close());

  /** The guest's main memory bit for bit, which stands still while it is read. */
  async function expectRam(guest: Guest, { blocks }: Pick<MappedFile, "blocks"> | Applied): Promise<Buffer> {
    const ram = await readFile((guest.ram as RamFile).path);
    const block = blocks.find(({ name }) => name === "ram");
    expect(block?.bytes.length).toBe(RAM_BYTES);
    expect(block?.bytes.equals(ram)).toBe(true);
    return ram;
  }

  async function expectMapped(guest: Guest, mapped: MappedFile): Promise<void> {
    const ram = await expectRam(guest, mapped);
    const zero = Buffer.alloc(4096);
    const present = Array.from(
      { length: RAM_BYTES / 4096 },
      (_, n) => !ram.subarray(n * 4096, (n + 1) * 4096).equals(zero),
    );
    expect(mapped.blocks.find(({ name }) => name === "ram")?.present).toEqual(present);
    expect(mapped.devices).toContain("timer");
  }

  test("in a mapped-ram file that QEMU alone wrote", async () => {
    for (const channels of [0, 3]) {
      const file = lab.file(`foreign-${channels}.mr`);
      const source = await lab.source({ binary: ten, ramBytes: RAM_BYTES });
      await migrate(source.vm, { ...plainSettings(channels, false), uri: `file:${file}` });
      await expectMapped(source, await readMappedFile(file));
      await expect(readTrailer(file)).rejects.toThrow();
    }
  });

  test("in a sealed one, whose trailer is right", async () => {
    const image = lab.file("vm.mr");
    const offset = 64 * 1024;
    await writeFile(image, Buffer.alloc(offset, "header"));
    const source = await lab.source({ binary: ten, ramBytes: RAM_BYTES, machine: "pc-q35-7.2" });
    await lab.save(source, { image, offset, channels: 4 });
    expect(await readTrailer(image)).toMatchObject({ base: offset, checksums: true });
    await expectMapped(source, await readMappedFile(image, offset));
  });

  async function applied(guest: Guest, channels: Channels): Promise<Applied> {
    const image = lab.file("vm.mfd");
    await lab.lab.save(guest, channels, { image, workers: 2 });
    const streams = readBySpec(page, await readFile(image)).channels.map(({ bytes }) => bytes);
    return applyStreams(streams[0] ?? Buffer.alloc(0), streams.slice(1));
  }

  const setups: Readonly<Record<string, Omit<GuestSetup, "ramBytes">>> = {
    "7.2": { binary: seven },
    "10": { binary: ten },
    "10 as 7.2": { binary: ten, machine: "pc-q35-7.2" },
  };
  for (const [name, setup] of Object.entries(setups)) {
    test(`in the streams of QEMU ${name}`, async () => {
      const compressed = (["zlib", "zstd"] as const).map((compression) => ({ channels: 2, compression }));
      const more: Channels[] = name === "10 as 7.2" ? [] : [{ channels: 0 }, ...compressed];
      for (const how of [{ channels: 3 }, ...more]) {
        const source = await lab.source({ ...setup, ramBytes: RAM_BYTES });
        const found = await applied(source, how);
        await expectRam(source, found);
        // QEMU 10 without multifd has no MULTIFD_FLUSH.
        expect(found.barrierMode).toBe(name === "10" && how.channels > 0 ? "modern" : "legacy");
      }
    });

    // Barriers of 10 as 7.2 are those of 7.2: not worth another guest.
    if (name === "10 as 7.2") continue;
    test(`in the streams of QEMU ${name} whose guest ran`, async () => {
      const walked = { start: MIB, end: RAM_BYTES };
      const bootDisk = lab.file("disk");
      await writeFile(bootDisk, dirtierDisk(walked));
      const source = await lab.source({ ...setup, ramBytes: RAM_BYTES, bootDisk, accelerator: "tcg" });
      await source.vm.qmp.execute("cont");
      await untilPass(source.ram as RamFile, walked, 2);
      const found = await applied(source, { channels: 4, livePasses: 2 });
      await expectRam(source, found);
      expect(found.barriers).toBeGreaterThan(2);
    });
  }

  test("in a background snapshot, whose RAM has no END", async () => {
    const source = await lab.source({ binary: ten, ramBytes: RAM_BYTES });
    await source.vm.qmp.execute("cont");
    await source.vm.qmp.execute("stop");
    const capabilities = [{ capability: "background-snapshot", state: true }];
    await source.vm.qmp.execute("migrate-set-capabilities", { capabilities });
    const found = await applied(source, { channels: 0 });
    expect(found.hasRamEnd).toBe(false);
    await expectRam(source, found);
  });
});
