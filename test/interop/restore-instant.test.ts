import { Buffer } from "node:buffer";
import { readFile, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { encodeLibvirtHeader, HEADER_BYTES } from "../../src/formats/libvirt/header.ts";
import { restoreInstant } from "../../src/index.ts";
import { waitMigration } from "../../src/vm/migration.ts";
import { differingPages, plainSettings, set } from "../support/file-lab.ts";
import { restoredInstantly } from "../support/instant-guests.ts";
import { type Guest, type GuestSetup, Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
const OLD = "pc-q35-7.2";
/** Where the firmware lies, in a RAMBlock of its own. */
const FIRMWARE = { val: 2 ** 32 - 128 * 1024, size: 128 * 1024 };

describeBothQemus("a paused guest is restored instantly, bit for bit", ({ seven, ten }) => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await Lab.open();
  });
  afterAll(() => lab.close());

  const binaryOf = (version: string) => (version === "10" ? ten : seven);
  const setupOf = (version: string, machine = "q35"): GuestSetup => {
    return { binary: binaryOf(version), ramBytes: RAM, machine };
  };

  async function expectSame(from: Guest, into: Guest): Promise<void> {
    expect(await differingPages(from, into)).toBe(0);
    expect(await into.vm.qmp.execute("query-status")).toMatchObject({ status: "paused", running: false });
  }

  async function firmwareOf({ vm }: Guest, name: string): Promise<Buffer> {
    await vm.qmp.execute("pmemsave", { ...FIRMWARE, filename: lab.file(name) });
    return readFile(lab.file(name));
  }

  test.each([
    ["7.2", "7.2", OLD],
    ["10", "10", "q35"],
    ["7.2", "10", OLD],
  ])("saved by us out of QEMU %s, into QEMU %s (%s)", async (from, into, machine) => {
    const image = lab.file(`${from}-${into}`);
    const source = await lab.source(setupOf(from, machine));
    await lab.save(source, { channels: 2 }, { image, format: "mapped-ram" });
    const restored = await restoredInstantly(lab, setupOf(into, machine), { image });
    await expectSame(source, restored);
    const [before, after] = [await firmwareOf(source, "before"), await firmwareOf(restored, "after")];
    expect(after.equals(before)).toBe(true);
    const { instant } = restored.completed;
    expect(instant?.pagesSent).toBe(instant?.pages);
    // Zero pages were not sent: nobody asked for them.
    expect(instant?.pages).toBeLessThan(RAM / 4096);
    await Promise.all([source.vm.quit(), restored.vm.quit()]);
  });

  test("a file that QEMU 10 alone wrote is taken when it is said that nothing of it can be checked", async () => {
    const image = lab.file("foreign");
    const source = await lab.source(setupOf("10"));
    await set(source.vm, plainSettings(0, false));
    await source.vm.qmp.execute("migrate", { uri: `file:${image}` });
    await waitMigration(source.vm.qmp, 60_000);
    const nobody = `unix:${lab.file("nobody")}`;
    await expect(restoreInstant({ image, connect: nobody })).rejects.toMatchObject({ code: "USAGE" });
    const restored = await restoredInstantly(lab, setupOf("10"), { image, unverified: true });
    await expectSame(source, restored);
    await Promise.all([source.vm.quit(), restored.vm.quit()]);
  });

  test("libvirt's file, whose stream begins at no round number", async () => {
    const image = lab.file("libvirt");
    const xml = Buffer.from("<domain/>\0");
    const header = encodeLibvirtHeader({
      ...{ complete: true, running: false, format: "sparse", cookieOffset: null },
      dataLength: xml.length,
    });
    await writeFile(image, Buffer.concat([header, xml]));
    const source = await lab.source(setupOf("10"));
    await set(source.vm, plainSettings(0, false));
    await source.vm.qmp.execute("migrate", { uri: `file:${image},offset=${HEADER_BYTES + xml.length}` });
    await waitMigration(source.vm.qmp, 60_000);
    const restored = await restoredInstantly(lab, setupOf("10"), { image, unverified: true });
    await expectSame(source, restored);
    await Promise.all([source.vm.quit(), restored.vm.quit()]);
  });
});
