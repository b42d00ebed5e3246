import { Buffer } from "node:buffer";
import { truncate, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { encodeLibvirtStart } from "../../src/formats/libvirt/data-area.ts";
import { inspect, type Log, verify } from "../../src/index.ts";
import { buildMigration, tail } from "../support/fake-migration.ts";
import { seededRandom } from "../support/random.ts";
import { useScratch } from "../support/scratch.ts";
import * as wire from "../support/stream-builder.ts";

const scratch = useScratch();
const RAM = [{ name: "mem", bytes: 16 * wire.PAGE_BYTES }];
const STREAM = buildMigration({ channels: 0 }).main;
const TAIL = tail({ timer: Buffer.alloc(40, 0x11) });

async function file(bytes: Buffer): Promise<string> {
  await writeFile(scratch.file("vm"), bytes);
  return scratch.file("vm");
}

/** A stream with all pages in one PART, and what is asked for behind it. */
function stream(options: wire.ConfigurationOptions, ...rest: Buffer[]): Buffer {
  const list = Buffer.concat([
    wire.blockList(RAM, options.capabilities?.includes("x-ignore-shared")),
    wire.eosWord,
  ]);
  const pages = Array.from({ length: 16 }, (_, n) =>
    wire.pageRecord(n * wire.PAGE_BYTES, n === 0 ? "mem" : null, Buffer.alloc(wire.PAGE_BYTES, n)),
  );
  const part = wire.partSection(2, Buffer.concat([...pages, wire.eosWord]));
  return Buffer.concat([wire.configuration(options), wire.startSection(2, list), part, ...rest]);
}

describe("a stream of QEMU in a file", () => {
  test("whose multifd channels are somewhere else is not whole", async () => {
    for (const style of ["7.2", "10"] as const) {
      const image = await file(
        buildMigration({ style, channels: 2, devices: { cpu: Buffer.alloc(8192, 0x11) } }).main,
      );
      expect(await inspect({ image })).toMatchObject({ verdict: "incomplete" });
      await expect(verify({ image })).rejects.toMatchObject({
        code: "IMAGE_DAMAGED",
        message: expect.stringMatching(/^.*vm: .*channel/),
      });
    }
  });

  test("of a background snapshot ends as it should: verified, with a word of warning", async () => {
    const image = await file(stream({}, TAIL));
    const reasons = [expect.stringContaining("as in a background snapshot")];
    expect(await inspect({ image })).toMatchObject({ verdict: "undecided", reasons });
    const warnings: string[] = [];
    const quiet = () => undefined;
    const warn = (_: object, text: string): void => void warnings.push(text);
    const log: Log = { debug: quiet, info: quiet, warn, error: quiet };
    expect(await verify({ image, log })).toMatchObject({ checked: "structure only" });
    expect(warnings).toContainEqual(expect.stringContaining("as in a background snapshot"));
  });

  test("without a vmdescription cannot be told to be whole", async () => {
    const timer = wire.fullSection(40, "timer", Buffer.alloc(40, 0x11));
    const image = await file(stream({}, wire.endSection(2, wire.eosWord), timer, wire.eofByte));
    await expect(verify({ image })).rejects.toMatchObject({
      code: "STREAM_UNDECIDED",
      message: expect.stringContaining("has no vmdescription"),
    });
  });

  test("is no whole one at any length but its own", async () => {
    const image = await file(STREAM);
    const random = seededRandom();
    for (let cut = 1; cut <= 12; cut++) {
      await writeFile(image, STREAM);
      await truncate(image, Math.max(4096, STREAM.length - random.integer(2 ** cut * 40) - 1));
      await expect(verify({ image }), `cut ${cut}`).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
    }
    await writeFile(image, Buffer.concat([STREAM, Buffer.alloc(1)]));
    await expect(verify({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });

  test.each([
    ["nothing but its magic", Buffer.concat([Buffer.from("QEVM"), Buffer.alloc(8192)]), /stream version 0/],
    [
      "a section of no kind",
      Buffer.concat([wire.configuration(), Buffer.alloc(8192, 9)]),
      /section of type 9/,
    ],
    ["an unknown record", corrupted(), /unknown flags|no block|lies at/],
  ])("with %s is damaged, and the place is named", async (_, bytes, words) => {
    const image = await file(bytes);
    for (const call of [inspect, verify]) {
      await expect(call({ image })).rejects.toMatchObject({
        code: "IMAGE_DAMAGED",
        message: expect.stringMatching(words),
        details: { offset: expect.any(Number) },
      });
    }
  });

  test("is not read on when the caller has enough", async () => {
    const image = await file(Buffer.concat(Array.from({ length: 400 }, () => STREAM)));
    const cancelled = new AbortController();
    const reading = verify({ image, signal: cancelled.signal });
    cancelled.abort();
    await expect(reading).rejects.toMatchObject({ code: "CANCELLED" });
  });
});

function corrupted(): Buffer {
  const bytes = Buffer.from(STREAM);
  bytes.fill(0xff, 5000, 5000 + 5000);
  return bytes;
}

describe("an image of libvirt", () => {
  const start = { xml: "<domain/>", cookie: null, running: false };

  test("that was never finished is described, and not verified", async () => {
    const image = await file(Buffer.concat([encodeLibvirtStart({ ...start, complete: false }), STREAM]));
    expect(await inspect({ image })).toMatchObject({ complete: false, contents: { verdict: "complete" } });
    await expect(verify({ image })).rejects.toMatchObject({
      code: "NOT_SEALED",
      message: expect.stringContaining("LibvirtQemudPart"),
    });
  });

  test("whose stream was cut says so", async () => {
    const image = await file(
      Buffer.concat([encodeLibvirtStart({ ...start, complete: true }), STREAM.subarray(0, -1)]),
    );
    expect(await inspect({ image })).toMatchObject({ complete: true, contents: { verdict: "incomplete" } });
    await expect(verify({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });

  test("whose stream is none is described as far as it goes", async () => {
    const image = await file(
      Buffer.concat([encodeLibvirtStart({ ...start, complete: true }), Buffer.alloc(8192)]),
    );
    expect(await inspect({ image })).toMatchObject({
      ...{ xml: "<domain/>", contents: null, problem: expect.stringContaining('not with "QEVM"') },
    });
    await expect(verify({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });

  test("that ends with its XML has no stream", async () => {
    const image = await file(encodeLibvirtStart({ ...start, complete: true }));
    expect(await inspect({ image })).toMatchObject({ contents: { verdict: "incomplete", machine: null } });
    await expect(verify({ image })).rejects.toMatchObject({ code: "IMAGE_DAMAGED" });
  });

  test("that is compressed is not taken for checked", async () => {
    const bytes = Buffer.concat([encodeLibvirtStart({ ...start, complete: true }), Buffer.alloc(8192, 0x28)]);
    bytes.writeUInt32LE(5, 28);
    const image = await file(bytes);
    await expect(verify({ image })).rejects.toMatchObject({
      code: "NOT_AN_IMAGE",
      message: expect.stringContaining("tail -c +69633 FILE | zstd -dc"),
    });
  });

  test("with a damaged header is refused by its place", async () => {
    const bytes = Buffer.concat([encodeLibvirtStart({ ...start, complete: true }), STREAM]);
    bytes.writeUInt32LE(0, 20);
    const image = await file(bytes);
    for (const call of [inspect, verify]) {
      await expect(call({ image })).rejects.toMatchObject({
        code: "IMAGE_DAMAGED",
        message: expect.stringContaining("libvirt's header, byte 20"),
      });
    }
  });
});
