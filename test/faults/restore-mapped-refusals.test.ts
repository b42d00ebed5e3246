import { Buffer } from "node:buffer";
import { open, writeFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { encodeLibvirtStart } from "../../src/formats/libvirt/data-area.ts";
import { encodeFooter } from "../../src/formats/mapped-ram/footer.ts";
import { type RestoreOptions, restore } from "../../src/index.ts";
import { punchHole } from "../../src/io/libc.ts";
import { exampleMapped } from "../support/example-mapped.ts";
import { buildMigration } from "../support/fake-migration.ts";
import { mappedFile } from "../support/mapped-file.ts";
import { useScratch } from "../support/scratch.ts";

const PAGE = 4096;
const scratch = useScratch();

/** Nobody listens there: whatever is refused before connecting is refused with its own code. */
async function expectRefused(
  content: Uint8Array,
  code: string,
  words: RegExp,
  options: Partial<RestoreOptions> = {},
): Promise<void> {
  const image = scratch.file("image");
  await writeFile(image, content);
  const run = restore({ image, connect: `unix:${scratch.file("nobody")}`, ...options });
  await expect(run).rejects.toMatchObject({ code, message: expect.stringMatching(words) });
}

const foreign = (): Buffer =>
  mappedFile({ blocks: [{ name: "mem", bytes: 20 * PAGE, pages: { 0: 0x5a, 17: 0xa5 } }] });

test("what is in order is not refused: the connection is what fails", async () => {
  await expectRefused(foreign(), "CONNECT_FAILED", /./);
  await expectRefused(exampleMapped().bytes, "CONNECT_FAILED", /./);
});

test.each([
  ["without a seal", foreign],
  ["sealed", () => exampleMapped().bytes],
])("a number of channels cannot be expected of an image %s, as it has none", async (_how, content) => {
  const expectation = { expect: { channels: 4 } };
  await expectRefused(
    content(),
    "EXPECTATION_FAILED",
    /no number of .* choose one with --channels/,
    expectation,
  );
});

test("another machine type", async () => {
  const options = { expect: { machine: "pc-q35-7.2" } };
  await expectRefused(foreign(), "EXPECTATION_FAILED", /machine type is pc-q35-10.0/, options);
});

test("a page that was never written, of a file without checksums", async () => {
  const image = scratch.file("holed");
  await writeFile(image, foreign());
  const handle = await open(image, "r+");
  punchHole(handle.fd, 2 ** 20 + 17 * PAGE, PAGE);
  await handle.close();
  const run = restore({ image, connect: `unix:${scratch.file("nobody")}` });
  await expect(run).rejects.toMatchObject({
    code: "IMAGE_DAMAGED",
    details: { offset: 2 ** 20 + 17 * PAGE, block: "mem", position: 17 * PAGE },
  });
});

test("with verify first a damaged page, before anything is sent", async () => {
  const { bytes } = exampleMapped();
  bytes.writeUInt8(0, 2 ** 20 + PAGE + 5);
  await expectRefused(bytes, "IMAGE_DAMAGED", /do not match their checksum/, { verify: "first" });
});

test("QEMU's part cut, and anything behind it", async () => {
  await expectRefused(foreign().subarray(0, -1), "IMAGE_DAMAGED", /does not end here/);
  await expectRefused(Buffer.concat([foreign(), Buffer.alloc(PAGE)]), "IMAGE_DAMAGED", /does not end here/);
});

test("a save of ours that was never finished", async () => {
  const { streamEnd, bytes } = exampleMapped();
  const identity = { uuid: "c0ffee00-0000-4000-8000-000000000002", createdMs: 0 };
  const writing = encodeFooter({ ...identity, state: "writing", seal: null });
  const start = bytes.subarray(0, Math.ceil(streamEnd / PAGE) * PAGE);
  await expectRefused(Buffer.concat([start, writing]), "NOT_SEALED", /never finished/);
});

test("a stream that is not mapped-ram, which QEMU alone can read, also in libvirt's image", async () => {
  const { main } = buildMigration({ channels: 0 });
  await expectRefused(
    Buffer.concat([main, Buffer.alloc(PAGE)]),
    "NOT_AN_IMAGE",
    /without the capability mapped-ram/,
  );
  const libvirt = { complete: true, running: true, xml: "<domain/>", cookie: null };
  const raw = Buffer.concat([encodeLibvirtStart(libvirt), main]);
  await expectRefused(raw, "NOT_AN_IMAGE", /libvirt in its format "raw"/);
});
