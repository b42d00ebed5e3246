import { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { describeImage } from "../../../src/cli/inspect-page.ts";
import { encodeLibvirtHeader, type LibvirtFormat } from "../../../src/formats/libvirt/header.ts";
import { inspect } from "../../../src/index.ts";
import { buildMigration } from "../../support/fake-migration.ts";
import { mappedFile } from "../../support/mapped-file.ts";
import { useScratch } from "../../support/scratch.ts";
import { runCommand } from "./run-cli.ts";

const scratch = useScratch();
const UUID = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
const XML = `<domain><name>web</name><uuid>${UUID}</uuid><graphics passwd='secret'/></domain>`;
const STREAM = buildMigration({ channels: 0 }).main;

/** With the data area as long as the XML, and so at an odd place. */
function libvirt(format: LibvirtFormat, inside: Buffer, complete = true): Buffer {
  const data = Buffer.from(`${XML}\0`);
  const header = { complete, dataLength: data.length, running: true, format, cookieOffset: null };
  return Buffer.concat([encodeLibvirtHeader(header), data, inside]);
}

async function page(bytes: Buffer, offset = 0): Promise<string> {
  const image = scratch.file("vm.save");
  await writeFile(image, bytes);
  return describeImage(await inspect({ image, offset }));
}

test("a stream of QEMU: whether it is whole, what is in it, and how QEMU loads it", async () => {
  const shown = await page(Buffer.concat([Buffer.alloc(4096), STREAM]), 4096);
  expect(shown).toMatch(/whole +yes, from its first byte to its last; nothing in it is checksummed/);
  expect(shown).toMatch(/starts at +byte 4096 of the file/);
  expect(shown).toMatch(/machine +pc-q35-7.2/);
  expect(shown).toMatch(/RAM blocks, in 37 pages with data and 16 of zeros/);
  expect(shown).toMatch(/mem +160.0 KiB/);
  const uri = `exec:tail -c +4097 ${scratch.file("vm.save")}`;
  expect(shown).toContain(`{"execute":"migrate-incoming","arguments":{"uri":"${uri}"}}`);
});

test("a stream that was cut: why it is not whole, and no way to restore it", async () => {
  const shown = await page(STREAM.subarray(0, -100));
  expect(shown).toMatch(/whole +no; the main channel ended after \d+ bytes .*, without the EOF byte/);
  expect(shown).toContain("it is not whole: use another one");
  expect(shown).not.toContain("migrate-incoming");
});

test("an image of libvirt: the domain, but not its XML, and what is inside", async () => {
  const shown = await page(libvirt("raw", STREAM));
  expect(shown).toMatch(/format +image of libvirt, version 2\n/);
  expect(shown).toMatch(/finished +yes/);
  expect(shown).toMatch(new RegExp(`UUID +${UUID}`));
  expect(shown).toMatch(/whole +yes, from its first byte to its last/);
  expect(shown).toContain(`virsh restore ${scratch.file("vm.save")}`);
  expect(shown).toContain(`tail -c +${92 + XML.length + 2} ${scratch.file("vm.save")} >vm.stream`);
  expect(shown).not.toContain("secret");
});

test("an image of libvirt with mapped-ram inside, where it does not lie at a multiple of 4096", async () => {
  const base = 92 + XML.length + 1;
  const inside = mappedFile({ blocks: [{ name: "mem", bytes: 8192, pages: { 1: 7 } }], base });
  const shown = await page(libvirt("sparse", inside.subarray(base)));
  expect(shown).toMatch(/inside +mapped-ram of QEMU \(sparse\)/);
  expect(shown).toMatch(/mem +8.0 KiB, 4.0 KiB of it not zero/);
});

test("an image that libvirt compressed: the command that unpacks it", async () => {
  const shown = await page(libvirt("zstd", Buffer.alloc(8192, 0x28)));
  expect(shown).toMatch(/inside +QEMU's stream, compressed with zstd, and so not looked into/);
  expect(shown).toContain(`${scratch.file("vm.save")} | zstd -dc >vm.stream`);
});

test("an image that libvirt never finished, and that holds nothing one could read", async () => {
  const shown = await page(libvirt("sparse", Buffer.alloc(8192), false));
  expect(shown).toMatch(/finished +no: libvirt never finished it/);
  expect(shown).toMatch(/problem +.*the image is damaged/);
  expect(shown).not.toContain("virsh restore");
});

test("names from a file do not steer the terminal", async () => {
  const blocks = [{ name: "a\u001b[31m", bytes: 40 * 4096 }];
  expect(await page(buildMigration({ channels: 0, blocks }).main)).not.toContain("\u001b");
});

test("inspect --xml prints the domain's XML and nothing else", async () => {
  const image = scratch.file("vm.save");
  await writeFile(image, libvirt("raw", Buffer.alloc(4096), false));
  expect(await runCommand("inspect", image, "--xml")).toMatchObject({ stdout: XML });
  expect(JSON.parse((await runCommand("inspect", image, "--xml", "--json")).stdout)).toEqual({ xml: XML });
  await writeFile(image, STREAM);
  const refused = await runCommand("inspect", image, "--xml", "--json");
  expect(JSON.parse(refused.stdout)).toMatchObject({
    code: "NOT_AN_IMAGE",
    message: expect.stringContaining("only images that libvirt saved have one"),
  });
});
