import { readdirSync, readlinkSync } from "node:fs";
import { lstat, open, readdir, readFile, writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { punchHole } from "../../src/io/libc.ts";
import { abandonFileSave, finishFileSave, prepareFileSave } from "../../src/vm/engine-file/save.ts";
import { type FileGuest, FileLab, migrate } from "../support/file-lab.ts";
import { inspectMapped } from "../support/inspecting.ts";
import { describeWithLoopDevices, describeWithMounts, useMounts } from "../support/mounts.ts";
import { describeBothQemus } from "../support/qemus.ts";

const MIB = 2 ** 20;
const OLD = "an earlier image";

describeBothQemus("what can go wrong when QEMU writes", ({ seven, ten }) => {
  const setup = { binary: ten, ramBytes: 64 * MIB };
  let lab: FileLab;
  let image: string;
  beforeEach(async () => {
    lab = await FileLab.open();
    image = lab.file("vm.mr");
  });
  afterEach(() => lab.close());

  /** The earlier image stands, nothing lies beside it, and QEMU holds no descriptor. */
  async function expectNothingLeft(guest: FileGuest | null): Promise<void> {
    expect(await readFile(image, "utf8")).toBe(OLD);
    expect((await readdir(lab.lab.directory)).filter((name) => name.includes("partial"))).toEqual([]);
    expect(openFiles().filter((file) => file.startsWith(lab.lab.directory))).toEqual([]);
    if (guest !== null) expect(await guest.vm.qmp.execute("query-fdsets")).toEqual([]);
  }

  async function runsOn({ vm }: FileGuest): Promise<void> {
    await vm.qmp.execute("cont");
    expect(await vm.qmp.execute("query-status")).toMatchObject({ status: "running" });
  }

  test("QEMU 7.2 has no mapped-ram", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source({ binary: seven, ramBytes: 16 * MIB });
    await expect(prepareFileSave(guest.monitor, { image, channels: 2 })).rejects.toMatchObject({
      code: "QEMU_UNSUPPORTED",
      message: expect.stringMatching(/7\.2\.\d+ does not offer mapped-ram.*--engine helper/),
    });
    expect(await readFile(image, "utf8")).toBe(OLD);
  });

  test("combinations that QEMU accepts and then breaks are refused with the reason", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source({ ...setup, ramBytes: 16 * MIB });
    const { qmp } = guest.vm;
    const set = (capability: string, state: boolean) =>
      qmp.execute("migrate-set-capabilities", { capabilities: [{ capability, state }] });
    for (const name of ["background-snapshot", "x-ignore-shared", "xbzrle", "postcopy-ram", "x-colo"]) {
      await set(name, true);
      await expect(prepareFileSave(guest.monitor, { image, channels: 2 }), name).rejects.toMatchObject({
        code: "QEMU_UNSUPPORTED",
        details: { setting: name },
      });
      await set(name, false);
    }
    for (const [name, value] of [
      ["multifd-compression", "zlib"],
      ["tls-creds", "creds"],
    ] as const) {
      const before = { "multifd-compression": "none", "tls-creds": "" }[name];
      await qmp.execute("migrate-set-parameters", { [name]: value });
      await expect(prepareFileSave(guest.monitor, { image, channels: 2 }), name).rejects.toMatchObject({
        code: "QEMU_UNSUPPORTED",
        details: { setting: name },
      });
      await qmp.execute("migrate-set-parameters", { [name]: before });
    }
    await expectNothingLeft(guest);
    // A return path alone would fail the migration; it is switched off, and this save works.
    await set("return-path", true);
    await lab.save(guest, { image, channels: 2 });
    await verify({ image });
  });

  test("targets that will not do are refused before QEMU hears of them", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source({ ...setup, ramBytes: 16 * MIB });
    const cases = [
      [{ image, channels: 2, expectBytes: 2 ** 50 }, "NO_SPACE"],
      [{ image: lab.lab.directory, channels: 2 }, "TARGET_REFUSED"],
      [{ image, channels: 0, directIo: "on" }, "QEMU_UNSUPPORTED"],
    ] as const;
    for (const [options, code] of cases) {
      await expect(prepareFileSave(guest.monitor, options)).rejects.toMatchObject({ code });
    }
    const handle = await open(lab.file("write-only"), "w");
    const inherited = { image: `fd:${handle.fd}`, channels: 2 };
    await expect(prepareFileSave(guest.monitor, inherited)).rejects.toMatchObject({ code: "TARGET_REFUSED" });
    await handle.close();
    const named = { image: lab.file("a,offset=1"), channels: 2 };
    const byPath = { ...guest.monitor, passesFds: false };
    await expect(prepareFileSave(byPath, named)).rejects.toMatchObject({ code: "QEMU_UNSUPPORTED" });
    const first = await prepareFileSave(guest.monitor, { image, channels: 2 });
    const second = prepareFileSave(guest.monitor, { image, channels: 2 });
    await expect(second).rejects.toMatchObject({ code: "TARGET_BUSY" });
    await abandonFileSave(first);
    await expectNothingLeft(guest);
  });

  test("QEMU is killed while it writes", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source(setup);
    const prepared = await prepareFileSave(guest.monitor, { image, channels: 2, rate: 4 * MIB });
    const migration = migrate(guest.vm, prepared);
    const partial = lab.file(".vm.mr.multifd-partial");
    while ((await lstat(partial)).blocks * 512 < 2 * MIB) await new Promise(setImmediate);
    process.kill(guest.vm.pid, "SIGKILL");
    await expect(migration).rejects.toMatchObject({ code: "QEMU_FAILED" });
    await abandonFileSave(prepared);
    await expectNothingLeft(null);
  });

  test("a page that was never written is found, whatever QEMU reports", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source(setup);
    for (const checksum of ["crc32", "none"] as const) {
      const prepared = await prepareFileSave(guest.monitor, { image, channels: 2, checksum });
      await migrate(guest.vm, prepared);
      const partial = lab.file(".vm.mr.multifd-partial");
      const { blocks } = await inspectMapped(partial);
      const handle = await open(partial, "r+");
      const at = await presentPage(partial, blocks[0]?.pagesOffset ?? 0);
      punchHole(handle.fd, at, 4096);
      await handle.close();
      await expect(finishFileSave(prepared, null, null)).rejects.toMatchObject({
        code: "IO",
        message: expect.stringContaining("QEMU reported success, but the page at"),
        details: { offset: at },
      });
      await expectNothingLeft(guest);
      await runsOn(guest);
      await guest.vm.qmp.execute("stop");
    }
  });

  test("QEMU wrote elsewhere, or not to the end", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source(setup);
    const byPath = { ...guest.monitor, passesFds: false };
    const elsewhere = await prepareFileSave(byPath, { image, channels: 2 });
    await expect(finishFileSave(elsewhere, null, null)).rejects.toMatchObject({ code: "QEMU_FAILED" });
    await expectNothingLeft(guest);
    const cut = await prepareFileSave(guest.monitor, { image, channels: 2 });
    await migrate(guest.vm, cut);
    const handle = await open(lab.file(".vm.mr.multifd-partial"), "r+");
    await handle.truncate((await handle.stat()).size - 100);
    await handle.close();
    await expect(finishFileSave(cut, null, null)).rejects.toMatchObject({ code: "QEMU_FAILED" });
    await expectNothingLeft(guest);
  });

  test("a save behind a manager's header that fails leaves the header, and nothing that looks like a stream", async () => {
    const header = Buffer.alloc(4096, "header");
    await writeFile(image, Buffer.concat([header, Buffer.alloc(MIB, 1)]));
    const guest = await lab.source(setup);
    const given = await prepareFileSave(guest.monitor, { image, channels: 2, offset: header.length });
    await migrate(guest.vm, given);
    expect((await lstat(image)).size).toBeGreaterThan(setup.ramBytes);
    await abandonFileSave(given);
    expect((await readFile(image)).equals(header)).toBe(true);
    expect(await guest.vm.qmp.execute("query-fdsets")).toEqual([]);
  });

  test("cancelled while it is read back", async () => {
    await writeFile(image, OLD);
    const guest = await lab.source(setup);
    const cancel = new AbortController();
    const prepared = await prepareFileSave(guest.monitor, { image, channels: 2, signal: cancel.signal });
    await migrate(guest.vm, prepared);
    cancel.abort();
    await expect(finishFileSave(prepared, null, null)).rejects.toMatchObject({ code: "CANCELLED" });
    await expectNothingLeft(guest);
  });

  describeWithMounts("on file systems of its own", () => {
    const mounts = useMounts();

    test("a file system without O_DIRECT: QEMU, which would die of it, is told so and lives", async () => {
      mounts.mount("ramfs", lab.file("ramfs"));
      const guest = await lab.source(setup);
      const there = lab.file("ramfs/vm.mr");
      const demanded = prepareFileSave(guest.monitor, { image: there, channels: 2, directIo: "on" });
      await expect(demanded).rejects.toMatchObject({ code: "DIRECT_IO_REFUSED" });
      const saved = await lab.save(guest, { image: there, channels: 2 });
      expect(saved.image.directIo).toBe(false);
      await verify({ image: there });
      await runsOn(guest);
    });

    for (const channels of [0, 4]) {
      test(`a full disk, ${channels} channels: the VM goes on, and the old image stands`, async () => {
        mounts.mount("tmpfs", lab.file("small"), "size=24m");
        image = lab.file("small/vm.mr");
        await writeFile(image, OLD);
        const guest = await lab.source(setup);
        const prepared = await prepareFileSave(guest.monitor, { image, channels });
        // QEMU may fail, or report success for writes that came short; neither becomes an image.
        const ending = migrate(guest.vm, prepared).then(
          () => finishFileSave(prepared, null, null),
          async (error: unknown) => {
            await abandonFileSave(prepared);
            throw error;
          },
        );
        await expect(ending).rejects.toMatchObject({
          code: expect.stringMatching(/QEMU_FAILED|NO_SPACE|^IO$/),
        });
        expect(await readdir(lab.file("small"))).toEqual(["vm.mr"]);
        await expectNothingLeft(guest);
        await runsOn(guest);
      });
    }
  });

  describeWithLoopDevices("on devices", () => {
    const mounts = useMounts();

    test("a block device, which QEMU cannot truncate", async () => {
      const device = mounts.loopDevice(lab.file("disk"), 16 * MIB);
      const guest = await lab.source({ ...setup, ramBytes: 16 * MIB });
      const refused = prepareFileSave(guest.monitor, { image: device, channels: 2 });
      await expect(refused).rejects.toMatchObject({ code: "TARGET_REFUSED" });
    });
  });
});

/** Targets of our open descriptors. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // the descriptor that read the directory
    }
  });
}

/** File offset of the first page at or behind `from` that is there. */
async function presentPage(file: string, from: number): Promise<number> {
  const bytes = await readFile(file);
  for (let at = from; at < bytes.length; at += 4096) {
    if (bytes.subarray(at, at + 4096).some((byte) => byte !== 0)) return at;
  }
  throw new Error(`${file} holds no page`);
}
