import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { judgeCompleteness } from "../../../src/formats/migration/completeness.ts";
import { MainWalker } from "../../../src/formats/migration/main-stream.ts";
import { METHODS, MultifdWalker } from "../../../src/formats/migration/multifd-packet.ts";
import { RAM_FLAGS } from "../../../src/formats/migration/ram-records.ts";
import { exampleOfSeven, exampleOfTen } from "../../support/example-migration.ts";
import { buildMigration, pageContent } from "../../support/fake-migration.ts";
import { hexdump, parseHexdump } from "../../support/hexdump.ts";
import { findRepoRoot } from "../../support/repo.ts";
import { fieldsOf, readFields, sizeOf } from "../../support/spec-reader.ts";
import { deviceStatePacket, PAGE_BYTES } from "../../support/stream-builder.ts";
import { numbersOf, readMigrationBySpec } from "../../support/stream-spec-reader.ts";

const page = readFileSync(join(findRepoRoot(), "docs/formats/migration-stream.md"), "utf8");
const dumps = [...page.matchAll(/^```hexdump\n(.*?)\n```$/gms)].map(([, dump]) => dump as string);
const ten = exampleOfTen();
const seven = exampleOfSeven();
const streams = [ten.main, ...ten.channels, seven.main, ...seven.channels];

test("the page shows the very bytes that the examples have", () => {
  expect(dumps).toEqual(streams.map(hexdump));
  for (const [n, dump] of dumps.entries()) expect(parseHexdump(dump).equals(streams[n] as Buffer)).toBe(true);
});

describe("a reader made from the page alone", () => {
  const shown = dumps.map(parseHexdump) as [Buffer, Buffer, Buffer, Buffer, Buffer];

  test("puts the RAM of the example of QEMU 10 together", () => {
    const read = readMigrationBySpec(page, shown[0], [shown[1], shown[2]]);
    expect(read.ram.get("mem")?.equals(ten.ram)).toBe(true);
    expect(read).toMatchObject({
      ...{ machine: "pc-q35-10.0", barriers: "modern", devices: ["timer"], dataPages: [0, 2, 1, 0] },
      channels: [0, 1].map((id) => ({ id, uuid: "00112233445566778899aabbccddeeff", syncs: 3 })),
    });
  });

  test("puts the RAM of the example of QEMU 7.2 together", () => {
    const read = readMigrationBySpec(page, shown[3], [shown[4]]);
    expect(read.ram.get("mem")?.equals(seven.ram)).toBe(true);
    expect(read).toMatchObject({
      ...{ machine: "pc-q35-7.2", barriers: "legacy", devices: ["timer"], dataPages: [0, 4, 0, 0] },
      channels: [{ id: 0, uuid: "0".repeat(32), syncs: 3 }],
    });
  });

  test("puts the RAM of a stream without multifd together", () => {
    const blocks = [{ name: "mem", bytes: 4 * PAGE_BYTES }];
    const { main } = buildMigration({ channels: 0, blocks, zeroEvery: 2 });
    const pages = [0, 1, 2, 3].map((n) =>
      n % 2 === 1 ? Buffer.alloc(PAGE_BYTES) : pageContent("mem", n * PAGE_BYTES),
    );
    expect(readMigrationBySpec(page, main, []).ram.get("mem")?.equals(Buffer.concat(pages))).toBe(true);
  });

  test("finds the fields of a device's state", () => {
    const fields = fieldsOf(page, "### Packet with device state");
    const packet = deviceStatePacket("0000:00:02.0/vfio", 3, Buffer.alloc(100));
    expect(sizeOf(fields)).toBe(packet.length - 100);
    const read = readFields(fields, packet, 0);
    expect(read.get("flags")).toBe(BigInt(numbersOf(page, "### Flags").get("DEVICE_STATE") as number));
    expect([read.get("instance_id"), read.get("next_packet_size")]).toEqual([3n, 100n]);
  });
});

test.each([
  ["10", ten],
  ["7.2", seven],
])("the example of QEMU %s is a whole migration to the product", (_, { main, channels }) => {
  const walker = new MainWalker();
  walker.push(main);
  const walked = channels.map((bytes) => {
    const one = new MultifdWalker();
    one.push(bytes);
    return one.finish();
  });
  const judged = judgeCompleteness(walker.finish(), walked, channels.length);
  expect(judged).toEqual({ verdict: "complete", sealable: true, reasons: [] });
});

test("the product knows the same numbers as the page", () => {
  expect(Object.fromEntries(numbersOf(page, "### RAM records"))).toEqual(RAM_FLAGS);
  const flags = Object.fromEntries(numbersOf(page, "### Flags"));
  expect(flags).toEqual({ SYNC: 1, DEVICE_STATE: 0x40, ...METHODS });
});

test("the tables above the examples divide each stream without a gap", () => {
  const rows = [...page.matchAll(/^\| (main|channel \d) +\| +0x([0-9a-f]{4}) \| +(\d+) \|/gm)];
  let [stream, end] = [-1, 0];
  for (const [, , offset, length] of rows) {
    const at = Number.parseInt(offset as string, 16);
    if (at === 0) {
      expect(end).toBe(streams[stream]?.length ?? 0);
      stream++;
      end = 0;
    }
    expect(at).toBe(end);
    end += Number(length);
  }
  expect([stream, end]).toEqual([4, streams[4]?.length]);
});
