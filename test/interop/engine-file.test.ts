import { open, readFile, stat, writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { RamFile } from "../../src/demo/ram-file.ts";
import { inspect, verify } from "../../src/index.ts";
import { finishFileSave, prepareFileSave } from "../../src/vm/engine-file/save.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { dirtierDisk } from "../support/boot-sector.ts";
import { checkDirtyRam } from "../support/dirty-ram.ts";
import { differingPages, FileLab, incoming, plainSettings, set } from "../support/file-lab.ts";
import { converge } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { untilPass } from "../support/vms.ts";

const MIB = 2 ** 20;

describeBothQemus("QEMU writes mapped-ram, and we seal it", ({ ten }) => {
  const setup = { binary: ten, ramBytes: 64 * MIB };
  let lab: FileLab;
  beforeEach(async () => {
    lab = await FileLab.open();
  });
  afterEach(() => lab.close());

  for (const [channels, directIo] of [
    [0, "auto"],
    [1, "on"],
    [4, "on"],
    [4, "off"],
  ] as const) {
    test(`${channels} channels, direct-io ${directIo}: it comes back bit for bit`, async () => {
      const image = lab.file("vm.mr");
      const source = await lab.source(setup);
      const saved = await lab.save(source, { image, channels, directIo });
      expect(saved.image).toMatchObject({ format: "mapped-ram", directIo: directIo === "on" });
      expect(await source.vm.qmp.execute("query-fdsets")).toEqual([]);
      expect((await stat(image)).mode & 0o777).toBe(0o600);
      expect(await verify({ image, workers: 2 })).toMatchObject({ checked: "checksums and structure" });
      expect(await inspect({ image })).toMatchObject({
        format: "mapped-ram",
        sealed: true,
        bytes: saved.image.bytes,
      });

      const ours = await lab.restore(setup, { image, channels, directIo, verify: "first" });
      expect(await differingPages(source, ours)).toBe(0);
      expect(await ours.vm.qmp.execute("query-fdsets")).toEqual([]);
    });
  }

  for (const [channels, directIo] of [
    [0, false],
    [1, false],
    [8, true],
  ] as const) {
    test(`plain QEMU commands load it: ${channels} channels, direct-io ${directIo}`, async () => {
      const image = lab.file("vm.mr");
      const source = await lab.source(setup);
      await lab.save(source, { image, channels: 4 });
      const plain = await lab.destination(setup);
      await incoming(plain.vm, plainSettings(channels, directIo), `file:${image}`);
      expect(await differingPages(source, plain)).toBe(0);
    });
  }

  test("behind a manager's header, which stays as it was", async () => {
    const image = lab.file("vm.mr");
    const header = Buffer.alloc(64 * 1024, "header");
    await writeFile(image, Buffer.concat([header, Buffer.alloc(5 * MIB, 0xff)]));
    const source = await lab.source(setup);
    const offset = header.length;
    await lab.save(source, { image, offset, channels: 2 });
    expect((await readFile(image)).subarray(0, offset).equals(header)).toBe(true);
    await verify({ image, offset });
    const ours = await lab.restore(setup, { image, offset, channels: 4 });
    expect(await differingPages(source, ours)).toBe(0);
    const plain = await lab.destination(setup);
    await incoming(plain.vm, plainSettings(0, false), `file:${image},offset=${offset}`);
    expect(await differingPages(source, plain)).toBe(0);
  });

  test("by path, for a monitor that passes no descriptors", async () => {
    const image = lab.file("vm.mr");
    const source = await lab.source(setup);
    const monitor = { ...source.monitor, passesFds: false };
    await lab.save({ ...source, monitor }, { image, channels: 2 }, ({ uri }) =>
      expect(uri).toBe(`file:${lab.file(".vm.mr.multifd-partial")}`),
    );
    const plain = await lab.destination(setup);
    await incoming(plain.vm, plainSettings(2, true), `file:${image}`);
    expect(await differingPages(source, plain)).toBe(0);
  });

  test("a guest that runs and dirties its memory is saved as it was at its stop", async () => {
    const image = lab.file("vm.mr");
    const walked = { start: MIB, end: setup.ramBytes };
    const bootDisk = lab.file("disk");
    await writeFile(bootDisk, dirtierDisk(walked));
    const booted = { bootDisk, accelerator: "tcg" } as const;
    const source = await lab.source({ ...setup, ...booted });
    const { vm, monitor } = source;
    await vm.qmp.execute("cont");
    await untilPass(source.ram as RamFile, walked, 2);
    const prepared = await prepareFileSave(monitor, { image, channels: 4, rate: 400 * MIB });
    await set(vm, prepared);
    await vm.qmp.execute("migrate-set-parameters", { "downtime-limit": 1 });
    await vm.qmp.execute("migrate", { uri: prepared.uri });
    await converge(vm, 3);
    await waitMigration(vm.qmp, 60_000);
    await finishFileSave(prepared, null, null);
    const ours = await lab.restore({ ...setup, ...booted }, { image, channels: 2, verify: "first" });
    expect(await differingPages(source, ours)).toBe(0);
    expect((await checkDirtyRam(ours.ram?.path as string, walked)).violations).toBe(0);
  });

  test("--checksum none leaves the sums out", async () => {
    const image = lab.file("vm.mr");
    const source = await lab.source(setup);
    await lab.save(source, { image, channels: 2, checksum: "none" });
    expect(await verify({ image })).toMatchObject({ checked: "structure only" });
    expect(await inspect({ image })).toMatchObject({ sealed: true, checksum: "none" });
  });

  test("a file that QEMU alone wrote is described, and has only its structure to verify", async () => {
    const image = lab.file("foreign.mr");
    const source = await lab.source(setup);
    await set(source.vm, plainSettings(2, false));
    await source.vm.qmp.execute("migrate", { uri: `file:${image}` });
    for (;;) {
      const { status } = (await source.vm.qmp.execute("query-migrate")) as { status: string };
      if (status === "completed") break;
      expect(status).not.toBe("failed");
    }
    expect(await inspect({ image })).toMatchObject({
      ...{
        format: "mapped-ram",
        sealed: false,
        seal: "none of multifd-helper",
        metadata: null,
        imageUuid: null,
      },
      blocks: expect.arrayContaining([expect.objectContaining({ name: "ram", usedLength: 64 * MIB })]),
    });
    expect(await verify({ image })).toMatchObject({ checked: "structure only" });
    const handle = await open(image, "r+");
    await handle.truncate((await handle.stat()).size - 1);
    await handle.close();
    await expect(inspect({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });
});
