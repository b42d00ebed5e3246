import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import type { MappedStream } from "../../../src/formats/mapped-ram/model.ts";
import { MappedStreamWalker } from "../../../src/formats/mapped-ram/stream.ts";
import { barrierCount, needsZeroPages, synthesiseMain } from "../../../src/formats/mapped-ram/synthesis.ts";
import { barrierModeOf } from "../../../src/formats/migration/barrier-mode.ts";
import { initPacket, PacketWriter } from "../../../src/formats/migration/packet-writer.ts";
import { RecordWriter } from "../../../src/formats/migration/record-writer.ts";
import { type MappedFileOptions, mappedFile, restOf } from "../../support/mapped-file.ts";
import * as wire from "../../support/stream-builder.ts";

const PAGE = 4096;
const BLOCKS = [{ name: "mem", bytes: 70 * PAGE, pages: { 0: 1, 69: 2 } }];

function walk(file: Buffer): MappedStream {
  const walker = new MappedStreamWalker(0);
  while (walker.wanted < file.length) walker.push(file.subarray(walker.wanted, walker.wanted + 2 ** 20));
  return walker.finish();
}

/** All of main but its pages. */
function mainOf(options: Partial<MappedFileOptions>, mode: "legacy" | "modern" | null): Buffer {
  const file = mappedFile({ blocks: BLOCKS, ...options });
  const parts = synthesiseMain(walk(file), mode).flatMap((step) => {
    if (step.kind === "bytes") return [step.bytes];
    return step.kind === "copied" ? [file.subarray(step.offset, step.offset + step.length)] : [];
  });
  return Buffer.concat([file.subarray(0, 8), ...parts]);
}

const list = (...words: Buffer[]): Buffer =>
  Buffer.concat([wire.blockList([{ name: "mem", bytes: 70 * PAGE }]), ...words]);

test.each([
  ["legacy", [wire.eosWord], 3],
  ["modern", [wire.flushWord, wire.eosWord], 2],
  [null, [wire.eosWord], 0],
] as const)("main with %s barriers is what QEMU sends to a socket", (mode, words, barriers) => {
  const expected = Buffer.concat([
    wire.configuration({ machine: "pc-q35-10.0" }),
    wire.startSection(1, list(...words)),
    wire.partSection(1, Buffer.concat(words)),
    restOf(["timer"]),
  ]);
  expect(mainOf({}, mode).equals(expected)).toBe(true);
  expect(barrierCount(synthesiseMain(walk(mappedFile({ blocks: BLOCKS })), mode))).toBe(barriers);
});

test("capabilities but mapped-ram stay, as the destination must have them on", () => {
  const main = mainOf({ capabilities: ["mapped-ram", "late-one"] }, null);
  const head = wire.configuration({ machine: "pc-q35-10.0", capabilities: ["late-one"] });
  expect(main.subarray(0, head.length).equals(head)).toBe(true);
});

test.each([
  ["shared RAM, which is not in it", { capabilities: ["x-ignore-shared", "mapped-ram"] }, /x-ignore-shared/],
  [
    "another iterable device, whose sections have no length",
    { rest: Buffer.concat([wire.startSection(9, Buffer.alloc(9), "dirty-bitmap"), restOf(["timer"])]) },
    /iterable device "dirty-bitmap"/,
  ],
  [
    "a command that leads elsewhere",
    { rest: Buffer.concat([wire.command(7, Buffer.alloc(4)), restOf(["timer"])]) },
    /command PACKAGED/,
  ],
])("refused by name: %s", (_what, options, words) => {
  expect(() => mainOf(options, "modern")).toThrow(
    expect.objectContaining({ code: "QEMU_UNSUPPORTED", message: expect.stringMatching(words) }),
  );
});

test.each([
  ["pc-q35-7.2", "legacy"],
  ["pc-i440fx-8.0", "legacy"],
  ["pc-q35-4.0.1", "legacy"],
  ["pc-q35-8.1", "modern"],
  ["virt-9.2", "modern"],
  ["pc-q35-10.0", "modern"],
  ["microvm", "modern"],
  ["pc-q35-rhel8.6.0", "modern"],
])("the machine type %s has %s barriers", (machine, mode) => {
  expect(barrierModeOf(machine, null)).toBe(mode);
});

test.each([
  ["pc-q35-rhel8.6.0", "6.2.0", "legacy"],
  ["pc-q35-jammy", "8.0.5", "legacy"],
  ["pc-q35-rhel8.6.0", "8.1.0", "modern"],
  ["pc-q35-rhel9.6.0", "9.1.0", "modern"],
  ["pc-q35-rhel8.6.0", "a build of somebody's", "modern"],
  // What the name says holds for every QEMU.
  ["pc-q35-7.2", "10.0.2", "legacy"],
  ["pc-q35-8.1", "8.0.0", "modern"],
])("the machine type %s of a QEMU %s has %s barriers", (machine, version, mode) => {
  expect(barrierModeOf(machine, version)).toBe(mode);
});

test("pages beyond 4 GiB have their address", () => {
  const far = 5 * 2 ** 32 + 7 * PAGE;
  const records = new RecordWriter();
  const buffer = Buffer.alloc(100);
  const middle = records.zero(buffer, 0, "mem", far);
  const end = records.zero(buffer, middle, "mem", far + PAGE);
  const expected = Buffer.concat([wire.zeroRecord(far, "mem"), wire.zeroRecord(far + PAGE, null)]);
  expect(buffer.subarray(0, end).equals(expected)).toBe(true);
  const header = new PacketWriter(0, 1).pages("mem", [{ start: far, end: far + PAGE }]);
  expect(header).toEqual(
    wire.packet({ block: "mem", normal: [far], payload: Buffer.alloc(PAGE) }).subarray(0, 1344),
  );
});

test("packets are numbered so that no two channels use the same number", () => {
  const numbers = [0, 1, 2].flatMap((id) => {
    const packets = new PacketWriter(id, 3);
    return [0, 1].map(() => Buffer.from(packets.sync()).readBigUInt64BE(24));
  });
  expect(new Set(numbers).size).toBe(6);
  expect(Buffer.from(new PacketWriter(0, 3).sync()).equals(wire.syncPacket())).toBe(true);
});

test("an init packet has the VM's UUID, or none", () => {
  const uuid = "00112233-4455-6677-8899-aabbccddeeff";
  expect(initPacket(7, uuid).equals(wire.initPacket(7, uuid))).toBe(true);
  expect(initPacket(254, null).equals(wire.initPacket(254))).toBe(true);
});

test("zero pages are left out of large blocks only, and only into zeroed RAM", () => {
  const block = { name: "x", pageSize: PAGE, bitmapOffset: 0, pagesOffset: 0 };
  const large = { ...block, usedLength: 64 * 2 ** 20 };
  const firmware = { ...block, usedLength: 64 * 2 ** 20 - PAGE };
  expect([needsZeroPages(large, true), needsZeroPages(large, false)]).toEqual([false, true]);
  expect([needsZeroPages(firmware, true), needsZeroPages(firmware, false)]).toEqual([true, true]);
});
