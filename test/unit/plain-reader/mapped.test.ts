import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { expect, test } from "vitest";
import { parseHexdump } from "../../support/hexdump.ts";
import { mappedFile } from "../../support/mapped-file.ts";
import { readMappedFile } from "../../support/plain-reader/mapped-file.ts";
import { readTrailer } from "../../support/plain-reader/trailer.ts";
import { findRepoRoot } from "../../support/repo.ts";
import { useScratch } from "../../support/scratch.ts";
import * as wire from "../../support/stream-builder.ts";

const scratch = useScratch();
const page = readFileSync(path.join(findRepoRoot(), "docs/formats/mapped-ram.md"), "utf8");
const example = parseHexdump(page.match(/^```hexdump\n(.*?)\n```$/ms)?.[1] ?? "");

async function written(bytes: Buffer): Promise<string> {
  const file = scratch.file("vm.mr");
  await writeFile(file, bytes);
  return file;
}

/** The worked example with some bits of one byte flipped. */
function flipped(at: number): Promise<string> {
  const bytes = Buffer.from(example);
  bytes[at] = (bytes[at] ?? 0) ^ 0x11;
  return written(bytes);
}

test("it reads the worked example of the page", async () => {
  const file = await written(example);
  const { blocks, machine, devices, ...mapped } = await readMappedFile(file);
  expect({ machine, devices, capabilities: mapped.capabilities }).toEqual({
    ...{ machine: "pc-q35-10.0", devices: ["timer"], capabilities: ["mapped-ram"] },
  });
  const [mem] = blocks;
  expect(blocks.length).toBe(1);
  expect(mem?.present.flatMap((here, n) => (here ? [n] : []))).toEqual([0, 1, 17]);
  const wanted = Buffer.alloc(20 * 4096);
  for (const [n, fill] of [
    [0, 0x5a],
    [1, 0x5b],
    [17, 0xa5],
  ] as const) {
    wanted.fill(fill, n * 4096, (n + 1) * 4096);
  }
  expect(mem?.bytes.equals(wanted)).toBe(true);
  expect(mapped.tail.equals(example.subarray(0x11400d, 0x1140ac))).toBe(true);
  expect(mapped.rest.equals(example.subarray(0x11401f, 0x1140ac))).toBe(true);
  expect(await readTrailer(file)).toMatchObject({
    ...{ base: 0, streamEnd: 0x1140ac, imageUuid: "c0ffee00000040008000000000000002", checksums: true },
    metadata: { qemuVersion: "10.0.2", user: { name: "example" } },
  });
});

test("a changed byte of stream, present page, map, metadata, checksums, mark, footer or padding is found", async () => {
  const places = [
    ...[0, 0x0b, 0x0f, 0x1c, 0x46, 0x5f, 0x66, 0x73, 0x7f, 0x87, 0x88, 0x8a],
    ...[0x9000, 0x100000, 0x101fff, 0x111000, 0x114003, 0x114030, 0x1140ab],
    ...[
      0x1140b0, 0x115000, 0x11500f, 0x115013, 0x115017, 0x11503f, 0x115040, 0x116003, 0x1161b0, 0x117007,
      0x117ff0, 0x118000, 0x118fff,
    ],
    ...Array.from({ length: 152 }, (_, n) => 0x119000 + n),
    ...[0x1190a0, 0x119fff],
  ];
  for (const at of places) {
    await expect(readTrailer(await flipped(at)), `0x${at.toString(16)}`).rejects.toThrow();
  }
  // A page that is not present: whatever stands there means nothing.
  await expect(readTrailer(await flipped(0x102000))).resolves.toBeDefined();
});

test("a file that was cut or added to has no trailer", async () => {
  for (const bytes of [
    example.subarray(0, -1),
    example.subarray(0, -4096),
    Buffer.concat([example, Buffer.alloc(1)]),
    Buffer.concat([example, Buffer.alloc(4096)]),
  ]) {
    await expect(readTrailer(await written(bytes))).rejects.toThrow();
  }
});

test("it reads a stream behind a base, with commands and blocks of one page", async () => {
  const base = 12_345;
  const blocks = ["a", "b"].map((name, n) => ({ name, bytes: 4096, pages: n === 0 ? { 0: 0x77 } : {} }));
  const rest = [wire.partSection(1, wire.eosWord), wire.command(11), wire.endSection(1, wire.eosWord)];
  const tail = [wire.eofByte, wire.vmdescription(wire.vmdescriptionJson([]))];
  const file = await written(mappedFile({ base, blocks, rest: Buffer.concat([...rest, ...tail]) }));
  const read = await readMappedFile(file, base);
  expect(read.blocks.map(({ name, present }) => [name, ...present])).toEqual([
    ["a", true],
    ["b", false],
  ]);
  expect(read.commands).toEqual(["000b0000"]);
  expect(read.hasRamEnd).toBe(true);
  await expect(readMappedFile(file, 0)).rejects.toThrow("the stream begins with");
});

test("it demands of QEMU's part what QEMU writes", async () => {
  const blocks = [{ name: "mem", bytes: 65 * 4096, pages: { 3: 1 } }];
  const end = Buffer.concat([wire.endSection(1, wire.eosWord), wire.eofByte]);
  const vmdescription = wire.vmdescription(wire.vmdescriptionJson([]));
  const faults: Record<string, Buffer> = {
    "has map version 2": mappedFile({ blocks, header: (header) => header.writeUInt32BE(2, 0) }),
    "has its bitmap at": mappedFile({ blocks, header: (header) => header.writeUInt32BE(1, 16) }),
    "has its pages at": mappedFile({ blocks, alignment: 4096 }),
    'the capabilities are "x-ignore-shared"': mappedFile({ blocks, capabilities: ["x-ignore-shared"] }),
    "does not end with a vmdescription": mappedFile({ blocks, rest: end }),
    "RAM has the word 0x200": mappedFile({
      blocks,
      rest: Buffer.concat([
        wire.partSection(1, Buffer.concat([wire.flushWord, wire.eosWord])),
        end,
        vmdescription,
      ]),
    }),
  };
  for (const [message, bytes] of Object.entries(faults)) {
    await expect(readMappedFile(await written(bytes)), message).rejects.toThrow(message);
  }
  const stray = mappedFile({ blocks });
  const bitmapAt = stray.indexOf(Buffer.from([0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
  stray[bitmapAt + 8] = 0x02; // page 65 of 65
  await expect(readMappedFile(await written(stray))).rejects.toThrow("bits behind its last page 64");
});
