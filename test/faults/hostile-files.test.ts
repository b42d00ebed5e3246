import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { open, writeFile } from "node:fs/promises";
import net from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { encodeMetadata } from "../../src/formats/image/metadata.ts";
import { exampleImage, exampleMetadata } from "../support/example-image.ts";
import { tinyMigration } from "../support/fake-peer.ts";
import { forge, forgedIndex } from "../support/forged-image.ts";
import { useHelpers } from "../support/helper-process.ts";
import { peakOf } from "../support/peak-memory.ts";
import { seededRandom } from "../support/random.ts";
import { useScratch } from "../support/scratch.ts";

const MIB = 2 ** 20;
const TIB = 2 ** 40;
const ALLOWANCE_MIB = 64;
const LONGEST_MS = 10_000;
const COMMANDS = ["inspect", "verify", "restore"] as const;
type Command = (typeof COMMANDS)[number];

const scratch = useScratch();
const start = useHelpers();

/** A destination that takes everything and counts who came. */
let listener: net.Server;
let connections: number;
beforeEach(async () => {
  connections = 0;
  listener = net.createServer((socket) => {
    connections += 1;
    socket.on("error", () => undefined).resume();
  });
  await new Promise<void>((resolve) => listener.listen(scratch.file("destination"), resolve));
});
afterEach(() => {
  listener.close();
});

interface Outcome {
  readonly status: string | number;
  readonly code: string | undefined;
  readonly message: string;
  readonly peakMib: number;
  readonly elapsedMs: number;
}

async function run(command: Command, file: string): Promise<Outcome> {
  const before = performance.now();
  const connect = command === "restore" ? ["--connect", `unix:${scratch.file("destination")}`] : [];
  const workers = command === "inspect" ? [] : ["--workers", "2"];
  const helper = start([command, file, ...connect, ...workers, "--json"], { answers: command === "inspect" });
  const peakMib = await peakOf(helper);
  const elapsedMs = performance.now() - before;
  const status = await helper.exit();
  if (status === 0) return { status, code: undefined, message: "", peakMib, elapsedMs };
  const { code, message } = await helper.failure();
  return { status, code, message, peakMib, elapsedMs };
}

let baseline: Promise<Record<Command, number>> | undefined;

/** What each command needs for an image of a few kilobytes that nothing is wrong with but its last byte of data. */
async function ordinary(): Promise<Record<Command, number>> {
  const file = scratch.file("ordinary");
  const { bytes } = exampleImage();
  bytes.writeUInt8(1, 0x5500);
  await writeFile(file, bytes);
  const peaks: [Command, number][] = [];
  for (const command of COMMANDS) peaks.push([command, (await run(command, file)).peakMib]);
  return Object.fromEntries(peaks) as Record<Command, number>;
}

/** How an image is refused: by every command in the same way, unless `inspect`, which reads no data, has nothing to say. */
interface Refusal {
  readonly code: string;
  readonly status?: number;
  readonly words?: RegExp;
  readonly inspectable?: boolean;
}

async function expectRefused(file: string, refusal: Refusal): Promise<void> {
  const { code, status = 4, words = /./, inspectable = false } = refusal;
  baseline ??= ordinary();
  const usual = await baseline;
  connections = 0;
  for (const command of COMMANDS) {
    const outcome = await run(command, file);
    const fine = command === "inspect" && inspectable;
    expect(outcome, command).toMatchObject(
      fine ? { status: 0 } : { status, code, message: expect.stringMatching(words) },
    );
    expect(outcome.elapsedMs, `${command}: time`).toBeLessThan(LONGEST_MS);
    expect(outcome.peakMib - usual[command], `${command}: MiB above ordinary`).toBeLessThanOrEqual(
      ALLOWANCE_MIB,
    );
  }
  expect(connections).toBe(0);
}

function text(head: string, length: number): Buffer {
  return Buffer.concat([Buffer.from(head, "latin1"), Buffer.alloc(length - head.length)]);
}

function noise(bytes: number): Buffer {
  const random = seededRandom();
  return Buffer.from(Array.from({ length: bytes }, () => random.integer(256)));
}

describe("files of others", () => {
  test.each<[string, () => Buffer | undefined, Refusal]>([
    ["a program", () => readFileSync("/bin/sh"), { code: "NOT_AN_IMAGE" }],
    ["qcow2", () => text("QFI\xfb\0\0\0\x03", 256 * 1024), { code: "NOT_AN_IMAGE" }],
    ["a QEMU stream", () => tinyMigration(0)[0], { code: "NOT_AN_IMAGE", words: /5145564d/ }],
    ["libvirt's format", () => text("LibvirtQemudSave\x02", 8192), { code: "NOT_AN_IMAGE" }],
    ["zeros", () => Buffer.alloc(MIB), { code: "NOT_AN_IMAGE" }],
    ["noise", () => noise(MIB), { code: "NOT_AN_IMAGE" }],
    ["nothing", () => Buffer.alloc(0), { code: "NOT_AN_IMAGE" }],
    ["less than a superblock", () => text("MFDIMAGE", 4095), { code: "NOT_AN_IMAGE" }],
    [
      "our magic and noise",
      () => Buffer.concat([text("MFDIMAGE", 8), noise(MIB)]),
      { code: "IMAGE_DAMAGED" },
    ],
  ])("%s", async (_, content, refusal) => {
    const file = scratch.file("vm.mfd");
    await writeFile(file, content() ?? "");
    await expectRefused(file, refusal);
  });

  test.each(["/dev/zero", "/dev/full", "/tmp"])("%s is no file at all", (path) =>
    expectRefused(path, { code: "TARGET_REFUSED", status: 5 }),
  );

  test("a TiB of nothing", async () => {
    const handle = await open(scratch.file("vm.mfd"), "w");
    await handle.truncate(TIB);
    await handle.close();
    await expectRefused(scratch.file("vm.mfd"), { code: "NOT_AN_IMAGE" });
  });
});

/** As many extents of one page each as there are, behind each other. */
function pages(count: number, from = 4096): Float64Array {
  return Float64Array.from({ length: 2 * count }, (_, i) => (i % 2 === 0 ? from + (i / 2) * 4096 : 4096));
}

describe("images that point where they must not, with every checksum right", () => {
  const page = (offset: number, length = 4096) => Float64Array.of(offset, length);
  // Metadata lie at 0x4000 and the index behind them.
  test.each<[string, Parameters<typeof forgedIndex>, RegExp]>([
    ["an extent on the superblock", [{ length: 4096, extents: page(0) }], /in the superblock/],
    ["an extent on the metadata", [{ length: 4096, extents: page(0x4000) }], /overlaps/],
    ["an extent on the index", [{ length: 4096, extents: page(0x5000) }], /overlaps/],
    ["an extent around everything", [{ length: 0x5000, extents: page(4096, 0x5000) }], /overlaps/],
    [
      "one extent twice",
      [{ length: 8192, extents: Float64Array.of(4096, 4096, 4096, 4096) }],
      /overlaps main/,
    ],
    [
      "two channels in one place",
      [{ length: 4096, extents: page(4096) }, [{ length: 4096, extents: page(4096) }]],
      /overlaps/,
    ],
    [
      "an extent of a PiB",
      [{ length: 2 ** 50, blockBytes: 2 ** 20, extents: page(4096, 2 ** 50) }],
      /reach beyond/,
    ],
    [
      "an extent at the end of all numbers",
      [{ length: 4096, extents: page(2 ** 53 - 4096) }],
      /reach beyond/,
    ],
  ])("%s", async (_, index, words) => {
    const file = scratch.file("vm.mfd");
    await forge(file, { at: 0x4000, index: { bytes: forgedIndex(...index) } });
    await expectRefused(file, { code: "IMAGE_DAMAGED", words });
  });

  test.each<[string, number, RegExp]>([
    ["the superblock", 0, /index .*superblock/],
    ["the metadata", 0x4000, /index byte 0|overlaps/],
    ["another place within itself", 0x5008, /multiple of 4096/],
  ])("an index that is %s", async (_, offset, words) => {
    const file = scratch.file("vm.mfd");
    await forge(file, { at: 0x4000, index: { bytes: forgedIndex({}), offset } });
    await expectRefused(file, { code: "IMAGE_DAMAGED", words });
  });
});

describe("images of absurd size, with every checksum right", () => {
  const sparse = { code: "IMAGE_DAMAGED", inspectable: true, words: /checksum/ };
  const zeros = (length: number, blockBytes: number) => ({
    ...{ length, blockBytes, extents: Float64Array.of(4096, length) },
    checksums: new Uint32Array(Math.ceil(length / blockBytes)),
  });
  /** A record that claims `count` of what the field at `offset` counts. */
  const claiming = (offset: number, count: number) => {
    const bytes = forgedIndex({}, []);
    bytes.writeUInt32BE(count, 16 + offset);
    return bytes;
  };

  test.each<[string, () => Parameters<typeof forge>[1], Refusal]>([
    [
      "an index of 1 GiB of zeros",
      () => ({ index: { bytes: Buffer.alloc(0), zeros: 2 ** 30 } }),
      { code: "IMAGE_DAMAGED", words: /index byte 0/ },
    ],
    [
      "an index beyond 1 GiB",
      () => ({ index: { bytes: Buffer.alloc(0), zeros: 2 ** 30 + 8 } }),
      { code: "IMAGE_DAMAGED", words: /limit/ },
    ],
    [
      "4 million extents",
      () => ({ index: { bytes: claiming(32, 2 ** 22), zeros: 2 ** 26 } }),
      { code: "IMAGE_DAMAGED", words: /4194304 extents/ },
    ],
    [
      "100 million marks",
      () => ({ index: { bytes: claiming(36, 100_000_000), zeros: 800_000_000 } }),
      { code: "IMAGE_DAMAGED", words: /100000000 marks/ },
    ],
    [
      "as many extents as there may be",
      () => {
        const many = { ...zeros(2 ** 30, 4096), extents: pages(2 ** 18) };
        return { at: 4096 + 2 ** 30, index: { bytes: forgedIndex(many) } };
      },
      sparse,
    ],
    [
      "as many marks as there may be",
      () => {
        const marks = Float64Array.from({ length: 2 ** 22 }, (_, i) => i + 1);
        return { at: 4096 + 2 ** 23, index: { bytes: forgedIndex({ ...zeros(2 ** 23, MIB), marks }) } };
      },
      sparse,
    ],
    [
      "14 TiB of zeros in one channel",
      () => ({ at: 4096 + 14 * TIB, index: { bytes: forgedIndex(zeros(14 * TIB, MIB)) } }),
      sparse,
    ],
    [
      "a TiB in blocks of 4096 bytes: an index of 1 GiB",
      () => {
        const length = TIB - 2 ** 20;
        const head = forgedIndex({ ...zeros(length, 4096), checksums: null });
        head.writeUInt32BE(1, 16 + 20);
        return { at: TIB, index: { bytes: head, zeros: length / 1024 } };
      },
      sparse,
    ],
    [
      "14 TiB without checksums",
      () => {
        const main = { ...zeros(14 * TIB, MIB), checksums: null };
        return { at: 4096 + 14 * TIB, index: { bytes: forgedIndex(main, [{ marks: Float64Array.of(1) }]) } };
      },
      { code: "IMAGE_DAMAGED" },
    ],
    [
      "255 channels of counts without end",
      () => {
        const bytes = forgedIndex(
          {},
          Array.from({ length: 255 }, () => ({})),
        );
        for (let record = 0; record < 256; record++)
          bytes.fill(0xff, 16 + 48 * record + 32, 16 + 48 * record + 40);
        return { index: { bytes } };
      },
      { code: "IMAGE_DAMAGED", words: /index byte 16: the record needs/ },
    ],
    [
      "255 channels in blocks of 1 MiB",
      () => ({
        index: {
          bytes: forgedIndex(
            {},
            Array.from({ length: 255 }, () => ({ blockBytes: MIB })),
          ),
        },
      }),
      { code: "IMAGE_DAMAGED", words: /block sizes/ },
    ],
    [
      "64 connections in blocks of 1 MiB",
      () => {
        const [main, ...channels] = Array.from({ length: 64 }, (_, number) => ({
          ...zeros(4 * MIB, MIB),
          extents: Float64Array.of(4096 + number * 4 * MIB, 4 * MIB),
        }));
        const metadata = encodeMetadata({ ...exampleMetadata(), multifdChannels: 63 });
        const index = { bytes: forgedIndex(main ?? {}, channels) };
        return { at: 4096 + 256 * MIB, metadata: { bytes: metadata }, index };
      },
      sparse,
    ],
  ])("%s", async (_, forgery, refusal) => {
    const file = scratch.file("vm.mfd");
    await forge(file, forgery());
    await expectRefused(file, refusal);
  });
});

describe("metadata that would fill memory, with every checksum right", () => {
  const index = { bytes: forgedIndex({}) };
  const whole = (user: object) =>
    Buffer.from(JSON.stringify({ ...exampleMetadata(), multifdChannels: 0, user }));

  test.each<[string, () => Buffer, RegExp]>([
    ["64 MiB of nested arrays", () => Buffer.alloc(64 * MIB, "["), /limit/],
    ["4 MiB of nested arrays", () => Buffer.alloc(4 * MIB, "["), /nests 4194304 deep/],
    ["4 MiB of empty arrays", () => Buffer.from(`[${"[],".repeat((4 * MIB) / 3 - 2)}[]]`), /values/],
    ["4 MiB of objects with a key", () => Buffer.alloc(4 * MIB - 3, '{"a":{}},'), /values/],
    ["as many different keys as there may be", () => differentKeys(130_000), /user/],
    [
      "4 MiB of text beyond Latin-1",
      () => whole({ big: `${"a".repeat(4 * MIB - 2000)}\u20ac`, n: 1 }),
      /user/,
    ],
    ["4 MiB of base64 that is none", () => whole({ big: 1, also: "A".repeat(4 * MIB - 2000) }), /user/],
  ])("%s", async (_, bytes, words) => {
    const file = scratch.file("vm.mfd");
    await forge(file, { metadata: { bytes: bytes() }, index });
    await expectRefused(file, { code: "IMAGE_DAMAGED", words });
  });

  function differentKeys(count: number): Buffer {
    return whole(Object.fromEntries(Array.from({ length: count }, (_, i) => [`key ${i}`, i])));
  }
});
