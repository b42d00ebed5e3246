import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { MainWalker } from "../../../src/formats/migration/main-stream.ts";
import type { MainSummary } from "../../../src/formats/migration/summary.ts";
import { protocolFailure } from "../../support/expect-failure.ts";
import { buildMigration, tail } from "../../support/fake-migration.ts";
import * as wire from "../../support/stream-builder.ts";

const BLOCKS = [
  { name: "mem", bytes: 8 * 4096 },
  { name: "pc.bios", bytes: 4096 },
];
const PAGE = Buffer.alloc(4096, 0x33);
const CONFIGURATION = wire.configuration();
const LEGACY_START = wire.startSection(2, Buffer.concat([wire.blockList(BLOCKS), wire.eosWord]));
const MODERN_START = wire.startSection(
  1,
  Buffer.concat([wire.blockList(BLOCKS), wire.flushWord, wire.eosWord]),
);
const TAIL = tail({ timer: Buffer.alloc(24), cpu: Buffer.from("state") });

function walk(...parts: Buffer[]): MainSummary {
  const walker = new MainWalker();
  walker.push(Buffer.concat(parts));
  return walker.finish();
}

function refusal(...parts: Buffer[]): unknown {
  try {
    walk(...parts);
  } catch (error) {
    return error;
  }
  return "nothing was thrown";
}

function bytesOf(...parts: Buffer[]): number {
  return Buffer.concat(parts).length;
}

/** A legacy stream with these records in one PART. */
function withRecords(...records: Buffer[]): MainSummary {
  const part = wire.partSection(2, Buffer.concat([...records, wire.eosWord]));
  return walk(CONFIGURATION, LEGACY_START, part, wire.endSection(2, wire.eosWord), TAIL);
}

test("a stream of 7.2 is read to its last byte, every EOS a barrier", () => {
  const part = wire.partSection(
    2,
    Buffer.concat([wire.zeroRecord(0, "mem"), wire.zeroRecord(4096, null), wire.eosWord]),
  );
  const end = wire.endSection(2, wire.eosWord);
  const head = bytesOf(CONFIGURATION, LEGACY_START);
  const ramEnd = head + part.length + end.length;
  const whole = bytesOf(CONFIGURATION, LEGACY_START, part, end, TAIL);
  const description = wire.vmdescription(wire.vmdescriptionJson(["timer", "cpu"])).length;
  expect(walk(CONFIGURATION, LEGACY_START, part, end, TAIL)).toEqual({
    kind: "main",
    bytes: whole,
    machine: "pc-q35-7.2",
    pageSize: 4096,
    capabilities: [],
    uuid: null,
    barrierMode: "legacy",
    ramBlocks: [
      { name: "mem", usedLength: 32768 },
      { name: "pc.bios", usedLength: 4096 },
    ],
    barriers: [head - 13, head + part.length - 13, ramEnd - 13],
    ramEnd,
    pageRecords: 0,
    zeroRecords: 2,
    eofByte: whole - description - 1,
    devices: ["timer", "cpu"],
    undecided: [],
  });
});

test("with MULTIFD_FLUSH behind the block list, flushes are the barriers and EOS is none", () => {
  const part = wire.partSection(1, Buffer.concat([wire.flushWord, wire.eosWord]));
  const end = wire.endSection(1, wire.eosWord);
  const summary = walk(CONFIGURATION, MODERN_START, part, wire.command(11), end, TAIL);
  const head = bytesOf(CONFIGURATION, MODERN_START);
  expect(summary.barrierMode).toBe("modern");
  expect(summary.barriers).toEqual([head - 21, head + 5]);
  expect(summary.undecided).toEqual([]);
});

test("machine and RAM blocks are known early", () => {
  const walker = new MainWalker();
  walker.push(CONFIGURATION.subarray(0, -1));
  expect([walker.machine, walker.ramBlocks]).toEqual([null, null]);
  walker.push(CONFIGURATION.subarray(-1));
  expect([walker.machine, walker.ramBlocks]).toEqual(["pc-q35-7.2", null]);
  walker.push(LEGACY_START);
  expect(walker.ramBlocks).toHaveLength(2);
});

test("all parts of the configuration are read", () => {
  const uuid = "00112233-4455-6677-8899-aabbccddeeff";
  const start = wire.startSection(2, Buffer.concat([wire.blockList(BLOCKS, true), wire.eosWord]));
  const head = wire.configuration({
    machine: "virt-9.0",
    pageBits: 12,
    capabilities: ["x-ignore-shared"],
    uuid,
  });
  const summary = walk(head, start, wire.endSection(2, wire.eosWord), TAIL);
  expect(summary).toMatchObject({
    machine: "virt-9.0",
    capabilities: ["x-ignore-shared"],
    uuid,
    undecided: [],
  });
  expect(summary.ramBlocks).toHaveLength(2);
});

test("another page size moves the flags", () => {
  const blocks = [{ name: "mem", bytes: 65536 }];
  const start = wire.startSection(2, Buffer.concat([wire.blockList(blocks), wire.eosWord]));
  const record = wire.pageRecord(0, "mem", Buffer.alloc(65536));
  const end = wire.endSection(2, Buffer.concat([record, wire.eosWord]));
  const description = wire.vmdescription(wire.vmdescriptionJson([], 65536));
  const summary = walk(wire.configuration({ pageBits: 16 }), start, end, wire.eofByte, description);
  expect(summary).toMatchObject({ pageSize: 65536, pageRecords: 1, undecided: [], devices: [] });
  expect(summary.eofByte).not.toBeNull();
});

test("a vmdescription of another page size leaves the RAM in doubt", () => {
  const description = wire.vmdescription(wire.vmdescriptionJson([], 8192));
  const summary = walk(
    CONFIGURATION,
    LEGACY_START,
    wire.endSection(2, wire.eosWord),
    wire.eofByte,
    description,
  );
  expect(summary.undecided).toEqual([expect.stringContaining("8192")]);
});

test("every kind of page record is passed over by its own length", () => {
  const summary = withRecords(
    wire.pageRecord(0, "mem", PAGE),
    wire.zeroRecord(4096, null),
    wire.pageRecord(0, "pc.bios", PAGE),
    wire.xbzrleRecord(8192, "mem", Buffer.alloc(77, 0x10)),
    wire.compressedRecord(12288, null, Buffer.alloc(301, 0x10)),
  );
  expect(summary).toMatchObject({ pageRecords: 4, zeroRecords: 1, undecided: [], devices: ["timer", "cpu"] });
});

test("commands that leave RAM readable are passed over", () => {
  const commands = [wire.command(1), wire.command(2, wire.be32(1)), wire.command(3)];
  const summary = walk(CONFIGURATION, ...commands, LEGACY_START, wire.endSection(2, wire.eosWord), TAIL);
  expect(summary.undecided).toEqual([]);
  expect(summary.ramEnd).not.toBeNull();
});

test("early device sections end at their own footer, before RAM and behind its START", () => {
  const state = Buffer.concat([
    Buffer.from("7e000000030800010000ff", "hex"), // another section's footer, and a command behind it
    Buffer.from("7e0000000900", "hex"), // its own footer, but EOF behind it
    Buffer.from("7e0000000902000000070000", "hex"), // its own footer, but a PART of another device behind it
  ]);
  const early = wire.fullSection(9, "0000:00:01.0/virtio-mem-device-early", state);
  const part = wire.partSection(2, Buffer.concat([wire.zeroRecord(0, "mem"), wire.eosWord]));
  const end = wire.endSection(2, wire.eosWord);
  const summary = walk(CONFIGURATION, early, early, LEGACY_START, early, part, end, TAIL);
  expect(summary).toMatchObject({ undecided: [], zeroRecords: 1, devices: ["timer", "cpu"] });
  expect(summary.ramEnd).toBe(summary.bytes - TAIL.length);
});

test("a background snapshot has no END, which is said", () => {
  const part = wire.partSection(2, Buffer.concat([wire.pageRecord(0, "mem", PAGE), wire.eosWord]));
  const summary = walk(CONFIGURATION, LEGACY_START, part, TAIL);
  expect(summary).toMatchObject({ ramEnd: null, pageRecords: 1, devices: ["timer", "cpu"] });
  expect(summary.undecided).toEqual(["RAM has no END section, as in a background snapshot"]);
});

const advise = wire.command(3, Buffer.alloc(16));
const packaged = wire.command(7, wire.be32(100));
const hook = wire.startSection(
  2,
  Buffer.concat([wire.blockList(BLOCKS), wire.be64(0x080), Buffer.alloc(90)]),
);
test.each([
  ["postcopy", [CONFIGURATION, advise, LEGACY_START], "POSTCOPY_ADVISE with 16 bytes"],
  ["a package", [CONFIGURATION, LEGACY_START, packaged], "PACKAGED"],
  ["an unknown command", [CONFIGURATION, wire.command(40)], "the command 40"],
  ["RDMA", [CONFIGURATION, hook], "hook records"],
  ["another iterable device", [CONFIGURATION, LEGACY_START, wire.startSection(3, PAGE, "vfio", 1)], '"vfio"'],
  ["mapped-ram", [wire.configuration({ capabilities: ["mapped-ram"] }), LEGACY_START], "mapped-ram"],
  ["an unknown configuration", [CONFIGURATION, wire.subsection("colour", Buffer.alloc(3))], "colour"],
  ["a newer configuration", [CONFIGURATION, wire.subsection("uuid", Buffer.alloc(16), 2)], "version 2"],
])("%s cannot be followed, but the tail is found", (_, parts, words) => {
  const summary = walk(...parts, TAIL);
  expect(summary.undecided).toEqual([expect.stringContaining(words)]);
  expect(summary).toMatchObject({ barrierMode: null, barriers: [], ramEnd: null, devices: ["timer", "cpu"] });
});

const HEAD = [CONFIGURATION, LEGACY_START];
const record = (...parts: Buffer[]) => [...HEAD, Buffer.concat([wire.u8(2), wire.be32(2), ...parts])];
const start = (payload: Buffer, version = 4) => [
  CONFIGURATION,
  wire.startSection(2, payload, "ram", version),
];
const HALVES = ["A", "B"].map((name) => ({ name, bytes: 2048 }));
const MANY = Array.from({ length: 4097 }, (_, i) => ({ name: `block${i}`, bytes: 4096 }));
const badFooter = Buffer.from(LEGACY_START);
badFooter.writeUInt32BE(3, badFooter.length - 4);
test.each([
  ["a stream version other than 3", [Buffer.from("QEVM"), wire.be32(2)], "version 2"],
  ["no machine type", [CONFIGURATION.subarray(0, 8), wire.u8(0x04), wire.be32(9)], "machine type"],
  ["an endless machine type", [CONFIGURATION.subarray(0, 9), wire.be32(2 ** 32 - 1)], "machine type"],
  ["page bits beyond reason", [wire.configuration({ pageBits: 40 })], "40 bits"],
  [
    "an endless capability list",
    [CONFIGURATION, wire.subsection("capabilities", wire.be32(1e9))],
    "1000000000",
  ],
  ["an unknown section type", [CONFIGURATION, wire.u8(0x09)], "type 9"],
  ["EOF before RAM ended", [...HEAD, wire.eofByte], "type 0"],
  ["command 0", [CONFIGURATION, wire.command(0)], "command of type 0"],
  ["RAM version 3", start(wire.blockList(BLOCKS), 3), "version 3"],
  ["RAM that starts twice", [...HEAD, LEGACY_START], "starts twice"],
  ["RAM without its size", start(wire.eosWord), "flags 0x10"],
  [
    "a block longer than RAM",
    start(Buffer.concat([wire.be64(4096 + 4), Buffer.from([1, 65]), wire.be64(8192)])),
    '"A"',
  ],
  ["blocks of half a page", start(wire.blockList(HALVES)), '"A" with 2048 bytes'],
  ["blocks without number", start(wire.blockList(MANY)), "too many"],
  ["a block listed twice", start(wire.blockList([...BLOCKS, ...BLOCKS])), "twice"],
  ["a PART of another device", [...HEAD, wire.partSection(3, wire.eosWord)], "id 3"],
  ["a PART before START", [CONFIGURATION, wire.partSection(2, wire.eosWord)], "never started"],
  ["a wrong footer", [CONFIGURATION, badFooter], "footer of id 2"],
  ["an unknown record", record(wire.recordHead(0x400, 0, "mem")), "flags 0x400"],
  ["two kinds at once", record(wire.recordHead(0x00a, 0, "mem")), "flags 0xa"],
  ["a block that is not listed", record(wire.zeroRecord(0, "vga")), "not listed"],
  ["a page behind its block", record(wire.zeroRecord(4096, "pc.bios")), '"pc.bios", which has 4096'],
  ["a continued block before the first", record(wire.zeroRecord(0, null)), "before any was named"],
  ["a zero page of ones", record(wire.recordHead(0x002, 0, "mem"), wire.u8(1)), "filled"],
  ["a flush in a legacy stream", record(wire.flushWord), "MULTIFD_FLUSH"],
  ["an EOS with an address", record(wire.be64(0x1010)), "has an address"],
  ["an endless compressed page", record(wire.recordHead(0x100, 0, "mem"), wire.be32(1e9)), "1000000000"],
  ["an XBZRLE page longer than a page", record(wire.xbzrleRecord(0, "mem", Buffer.alloc(4097))), "XBZRLE"],
  ["an unknown XBZRLE", record(wire.recordHead(0x040, 0, "mem"), Buffer.from([2, 0, 1])), "XBZRLE"],
  [
    "a FULL section with RAM's id",
    [
      ...HEAD,
      ...record(wire.eosWord).slice(2),
      Buffer.from("7e00000002", "hex"),
      wire.fullSection(2, "x", PAGE),
    ],
    "no device section",
  ],
])("%s is refused with its offset", (_, parts, words) => {
  const error = refusal(...parts);
  expect(error).toMatchObject(protocolFailure(expect.any(Number)));
  expect((error as Error).message).toContain(words);
  expect((error as Error).message).toMatch(/^(RAM|[a-z][^.]*?) .*[^.] \(offset \d+\)$/);
});

test("the offset of a refusal is where the bad bytes begin", () => {
  expect(refusal(...HEAD, wire.u8(0x09))).toMatchObject(protocolFailure(bytesOf(...HEAD)));
  expect(refusal(...record(wire.flushWord))).toMatchObject(protocolFailure(bytesOf(...HEAD) + 5));
});

test("a stream cut anywhere is described, never thrown, and shows no tail", () => {
  const { main } = buildMigration({ channels: 0 });
  for (let length = 0; length < main.length; length += 97) {
    const summary = walk(main.subarray(0, length));
    expect(summary).toMatchObject({ bytes: length, eofByte: null, devices: [] });
  }
});
