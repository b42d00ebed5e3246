import { Buffer } from "node:buffer";
import { appendFile, copyFile, open, readFile, truncate, writeFile } from "node:fs/promises";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeImage } from "../../src/cli/inspect-page.ts";
import { compareFiles } from "../../src/demo/ram-pattern.ts";
import { encodeLibvirtStart } from "../../src/formats/libvirt/data-area.ts";
import { encodeLibvirtHeader } from "../../src/formats/libvirt/header.ts";
import { type ImageReport, inspect, verify } from "../../src/index.ts";
import { punchHole } from "../../src/io/libc.ts";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import { plainSettings, set } from "../support/file-lab.ts";
import { configure, type Guest, type GuestSetup, Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
const UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
const XML = `<domain type='kvm'>\n  <name>web</name>\n  <uuid>${UUID}</uuid>\n</domain>\n`;
const LIBVIRT = { xml: XML, cookie: "<cookie/>\n", running: true };

describeEachQemu("a file that QEMU wrote by itself", (binary) => {
  let lab: Lab;
  let source: Guest;
  let stream: string;
  /** The guest's RAM as it was saved. */
  let ram: string;
  const setup: GuestSetup = { binary, ramBytes: RAM };

  beforeAll(async () => {
    lab = await Lab.open();
    source = await lab.source(setup);
    stream = lab.file("vm.stream");
    await write(`exec:cat >${stream}`);
    ram = lab.file("ram");
    await copyFile(source.ram?.path as string, ram);
  });
  afterAll(() => lab.close());

  async function write(uri: string): Promise<void> {
    await migrateTo(source.vm.qmp, uri);
    await waitMigration(source.vm.qmp, 60_000);
  }

  /** A VM that was migrated away does not migrate again. */
  async function runOn(): Promise<void> {
    await source.vm.qmp.execute("cont");
    await source.vm.qmp.execute("stop");
  }

  async function copied(name: string, before: Uint8Array): Promise<string> {
    await writeFile(lab.file(name), before);
    await appendFile(lab.file(name), await readFile(stream));
    return lab.file(name);
  }

  function expectWhole(report: ImageReport): void {
    expect(report).toMatchObject({ format: "qemu-stream", verdict: "complete", reasons: [], sealed: false });
    if (report.format !== "qemu-stream") return;
    expect(report.machine).toMatch(/^pc-q35-/);
    expect(report.blocks).toContainEqual({ name: "ram", usedLength: RAM });
    const all = report.blocks.reduce((sum, { usedLength }) => sum + usedLength, 0) / 4096;
    expect(report.dataPages + report.zeroPages).toBe(all);
    expect(report.dataPages).toBeGreaterThan(all / 4);
    expect(report.devices).toContain("timer");
  }

  test("as a stream is walked to its end", async () => {
    expectWhole(await inspect({ image: stream }));
    const { bytes, checked } = await verify({ image: stream });
    expect({ bytes, checked }).toEqual({ bytes: (await readFile(stream)).length, checked: "structure only" });
  });

  test("as a stream is restored by the commands that inspect shows, behind a header of somebody's own", async () => {
    const image = await copied("behind", Buffer.alloc(4096, 0x4d));
    const report = await inspect({ image, offset: 4096 });
    expectWhole(report);
    const commands = [...describeImage(report).matchAll(/^ {4}(\{.*\})$/gm)].map(([, line]) =>
      JSON.parse(line as string),
    );
    const [{ arguments: incoming }] = commands.filter(({ execute }) => execute === "migrate-incoming");
    const guest = await lab.waiting(setup);
    await guest.vm.qmp.execute("migrate-incoming", incoming);
    await waitMigration(guest.vm.qmp, 60_000);
    const { differing } = await compareFiles(ram, guest.ram?.path as string);
    expect(differing).toBeLessThanOrEqual(1); // KVM's clock
    await guest.vm.quit();
  });

  test("as a stream that was cut, or damaged, is no whole one", async () => {
    const image = await copied("cut", Buffer.alloc(0));
    const { length } = await readFile(stream);
    for (const [bytes, why] of [
      [length - 1, "without the EOF byte and vmdescription"],
      [length - 40 * 1024, "without the EOF byte"],
      [length / 2, "before the END section of RAM"],
    ] as const) {
      await truncate(image, Math.floor(bytes));
      expect(await inspect({ image })).toMatchObject({
        verdict: "incomplete",
        reasons: [expect.stringContaining(why)],
      });
      await expect(verify({ image })).rejects.toMatchObject({
        code: "IMAGE_DAMAGED",
        message: expect.stringContaining(why),
      });
    }
    const file = await open(image, "r+");
    await file.write(Buffer.alloc(4096, 0xff), 0, 4096, 8 * MIB);
    await file.write(Buffer.alloc(8192, 0xff), 0, 8192, 12 * MIB + 100);
    await file.close();
    await expect(inspect({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });

  test("is found in an image of libvirt, wherever it begins", async () => {
    const aligned = encodeLibvirtStart({ ...LIBVIRT, complete: true });
    const header = {
      complete: true,
      dataLength: 1001,
      running: true,
      format: "raw",
      cookieOffset: null,
    } as const;
    const odd = Buffer.concat([
      encodeLibvirtHeader(header),
      Buffer.from(XML),
      Buffer.alloc(1001 - XML.length),
    ]);
    for (const start of [aligned, odd]) {
      const image = await copied("libvirt", start);
      const report = await inspect({ image });
      expect(report).toMatchObject({
        ...{ format: "libvirt", complete: true, running: true, imageFormat: "raw", vmUuid: UUID, xml: XML },
        ...{ streamOffset: start.length, problem: null },
      });
      expectWhole((report.format === "libvirt" && report.contents) || report);
      expect(await verify({ image })).toMatchObject({ checked: "structure only" });
    }
  });

  if (binary.major >= 10) {
    test("as mapped-ram is walked, its pages looked for, wherever it begins", async () => {
      const header = {
        complete: true,
        dataLength: 67_082,
        running: false,
        format: "sparse",
        cookieOffset: null,
      } as const;
      const start = Buffer.concat([encodeLibvirtHeader(header), Buffer.from(XML)]);
      const whole = Buffer.concat([start], 67_174);
      await set(source.vm, plainSettings(2, false));
      for (const [name, before] of [
        ["mapped", Buffer.alloc(0)],
        ["sparse", whole],
      ] as const) {
        const image = lab.file(name);
        await writeFile(image, before);
        await runOn();
        await write(`file:${image},offset=${before.length}`);
        const report = await inspect({ image });
        const inside = report.format === "libvirt" ? report.contents : report;
        expect(inside).toMatchObject({
          format: "mapped-ram",
          seal: "none of multifd-helper",
          base: before.length,
        });
        expect(await verify({ image })).toMatchObject({ checked: "structure only" });
      }
      await set(source.vm, { capabilities: { "mapped-ram": false, multifd: false }, parameters: {} });

      const image = lab.file("sparse");
      const file = await open(image, "r+");
      await file.write("Part", 12);
      await expect(verify({ image })).rejects.toMatchObject({ code: "NOT_SEALED" });
      await file.write("Save", 12);
      punchHole(file.fd, 20 * MIB, 4 * MIB);
      await file.close();
      await expect(verify({ image })).rejects.toMatchObject({
        code: "IMAGE_DAMAGED",
        message: expect.stringContaining("lies in a hole"),
      });
    });

    test("as a stream through file: is the same", async () => {
      const image = lab.file("file.stream");
      await configure(source.vm, { channels: 0 });
      await runOn();
      await write(`file:${image}`);
      expectWhole(await inspect({ image }));
    });
  }
});
