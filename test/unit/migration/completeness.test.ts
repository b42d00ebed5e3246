import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { judgeCompleteness, needsZeroedRam } from "../../../src/formats/migration/completeness.ts";
import type { MainSummary, MultifdSummary } from "../../../src/formats/migration/summary.ts";
import { buildMigration, SMALL_RAM, tail } from "../../support/fake-migration.ts";
import * as wire from "../../support/stream-builder.ts";
import { judge, type Walked, walkMigration } from "../../support/walk.ts";

const OLD = walkMigration(buildMigration({ style: "7.2", channels: 3 }));
const NEW = walkMigration(buildMigration({ style: "10", channels: 3 }));
const SINGLE = walkMigration(buildMigration({ channels: 0 }));

/** The verdict on a migration of which something was changed. */
function verdictOn(
  { main, channels }: Walked,
  change: { main?: Partial<MainSummary>; channel1?: Partial<MultifdSummary> } = {},
) {
  const changed = channels.map((channel) =>
    channel.id === 1 ? { ...channel, ...change.channel1 } : channel,
  );
  return judgeCompleteness({ ...main, ...change.main }, changed);
}

function incomplete(...sentences: string[]): object {
  const reasons = sentences.map((words) => expect.stringContaining(words));
  return { verdict: "incomplete", sealable: false, reasons };
}

const COMPLETE = { verdict: "complete", sealable: true, reasons: [] };

test.each([
  ["7.2 with 3 channels", { style: "7.2", channels: 3 }],
  ["7.2 with more channels than pages", { style: "7.2", channels: 60 }],
  ["10 with 3 channels", { style: "10", channels: 3, extraRounds: 4 }],
  ["7.2 without multifd", { style: "7.2", channels: 0 }],
  ["10 without multifd", { style: "10", channels: 0 }],
  ["packets filled to the last page", { style: "10", channels: 1, blocks: [{ name: "m", bytes: 2 ** 22 }] }],
  ["zlib", { style: "10", channels: 2, compress: { flags: 0x02, payload: () => Buffer.alloc(700, 9) } }],
] as const)("%s is complete", (_, options) => {
  expect(judge(buildMigration(options))).toEqual(COMPLETE);
});

test("no main is incomplete", () => {
  expect(judgeCompleteness(null, OLD.channels)).toEqual(incomplete("main channel is missing"));
});

test("main cut before the end of RAM, or before its tail, is incomplete", () => {
  const cut = { main: { ramEnd: null, eofByte: null } };
  expect(verdictOn(SINGLE, cut)).toEqual(incomplete("before the END section of RAM"));
  expect(verdictOn(SINGLE, { main: { eofByte: null } })).toEqual(incomplete("without the EOF byte"));
});

test("a channel that ended in a packet is named with its length", () => {
  const cut = { channel1: { atPacketBoundary: false } };
  expect(verdictOn(NEW, cut)).toEqual(incomplete(`channel 1 ended after ${NEW.channels[1]?.bytes} bytes`));
});

test("SYNCs must be as many as barriers, on each channel", () => {
  const late = { channel1: { syncEnds: [64, 1408] } };
  expect(verdictOn(OLD, late)).toEqual(incomplete("channel 1 has 2 SYNCs, but main has 3"));
  const short = incomplete(...[0, 1, 2].map((id) => `channel ${id} has 3 SYNCs, but main has 1`));
  expect(verdictOn(NEW, { main: { barriers: [70] } })).toEqual(short);
});

test("channel numbers must be 0 to N-1, each once", () => {
  const twice = verdictOn(OLD, { channel1: { id: 2 } });
  expect(twice).toEqual(incomplete("channel 1 of 3 is missing", "channel 2 came 2 times"));
});

test("with the expected number known, a lost last channel and one too many are found", () => {
  const { main, channels } = NEW;
  expect(judgeCompleteness(main, channels, 3)).toEqual(COMPLETE);
  expect(judgeCompleteness(main, channels, 4)).toEqual(incomplete("channel 3 of 4 is missing"));
  expect(judgeCompleteness(main, channels, 2)).toEqual(incomplete("only 2 channels were expected"));
});

test("a lost last channel shows as pages that nobody carried, which does not seal", () => {
  const { main, channels } = NEW;
  const verdict = judgeCompleteness(main, channels.slice(0, 2));
  expect(verdict).toMatchObject({ verdict: "undecided", sealable: false });
  expect(verdict.reasons).toEqual([expect.stringMatching(/^only \d+ of 44 pages of RAM/)]);
});

test("virtio-mem and x-ignore-shared explain pages that nobody carried", () => {
  const { main, channels } = NEW;
  const fewer = channels.slice(0, 2);
  for (const why of [{ devices: ["0000:00:01.0/virtio-mem"] }, { capabilities: ["x-ignore-shared"] }]) {
    expect(judgeCompleteness({ ...main, ...why }, fewer)).toEqual(COMPLETE);
  }
});

test("all channels must be of one VM and compressed alike; one without pages has no say", () => {
  const uuid = "11111111-1111-1111-1111-111111111111";
  expect(verdictOn(OLD, { channel1: { uuid } })).toEqual(incomplete("different VMs"));
  expect(verdictOn(OLD, { main: { uuid } })).toEqual(incomplete("different VMs"));
  expect(verdictOn(OLD, { channel1: { compression: "zstd" } })).toEqual(incomplete("none, zstd"));
  expect(verdictOn(OLD, { channel1: { compression: null } })).toEqual(COMPLETE);
});

test("a multifd stream whose channels never came is incomplete, in both modes", () => {
  expect(judgeCompleteness(OLD.main, [])).toEqual(incomplete("channels that carried the rest are missing"));
  expect(judgeCompleteness(NEW.main, [])).toEqual(incomplete("3 barriers for multifd channels"));
  const cut = { ...OLD.main, ramEnd: null, eofByte: null };
  expect(judgeCompleteness(cut, [])).toEqual(incomplete("before the END section of RAM"));
});

test("QEMU 8.1's flushes without multifd are no multifd stream: the pages are on main", () => {
  expect(verdictOn(SINGLE, { main: { barrierMode: "modern" } })).toEqual(COMPLETE);
});

test("an all-zero RAM without channels is complete", () => {
  expect(judge(buildMigration({ channels: 0, zeroEvery: 0 }))).toEqual(COMPLETE);
  const zeroes = { pageRecords: 0, zeroRecords: 44 };
  expect(verdictOn(SINGLE, { main: zeroes })).toEqual(COMPLETE);
});

test("with x-ignore-shared and nothing on main, missing channels cannot be told from shared RAM", () => {
  const main = { capabilities: ["x-ignore-shared"], pageRecords: 0, zeroRecords: 0 };
  expect(verdictOn(SINGLE, { main })).toMatchObject({ verdict: "undecided", sealable: false });
});

const list = Buffer.concat([wire.blockList(SMALL_RAM), wire.eosWord]);
const page = wire.pageRecord(0, "mem", Buffer.alloc(4096));
const background = Buffer.concat([
  wire.configuration(),
  wire.startSection(2, list),
  wire.partSection(2, Buffer.concat([page, wire.eosWord])),
  tail({ timer: Buffer.alloc(8) }),
]);

test("a background snapshot is undecided, and its tail may seal it", () => {
  const verdict = judge({ main: background, channels: [] });
  expect(verdict).toMatchObject({ verdict: "undecided", sealable: true });
  expect(verdict.reasons).toEqual([expect.stringContaining("background snapshot")]);
  const cut = judge({ main: background.subarray(0, -1), channels: [] });
  expect(cut).toMatchObject({ verdict: "undecided", sealable: false });
});

test("a background snapshot with multifd channels cannot be", () => {
  const { channels } = buildMigration({ channels: 1 });
  const verdict = judge({ main: background, channels });
  expect(verdict.verdict).toBe("incomplete");
  expect(verdict.reasons.join()).toContain("no END section of RAM, although 1 multifd");
});

const vfio = Buffer.concat([
  wire.configuration(),
  wire.startSection(9, Buffer.alloc(60, 0x41), "vfio", 1),
  tail({ timer: Buffer.alloc(8) }),
]);

test("with another iterable device, equal SYNCs, packet boundaries and the tail may seal", () => {
  expect(judge({ main: vfio, channels: [] })).toMatchObject({ verdict: "undecided", sealable: true });
  const { channels } = buildMigration({ channels: 2 });
  expect(judge({ main: vfio, channels })).toMatchObject({ verdict: "undecided", sealable: true });
  const extra = [channels[0] ?? Buffer.alloc(0), Buffer.concat([channels[1] ?? vfio, wire.syncPacket()])];
  expect(judge({ main: vfio, channels: extra })).toEqual(
    incomplete("multifd channel 1 has 4 SYNCs, but channel 0 has 3"),
  );
  expect(judge({ main: vfio.subarray(0, -1), channels })).toMatchObject({ sealable: false });
});

test("suppress-vmdesc is undecided, and its bare EOF byte does not seal", () => {
  const { main, channels } = buildMigration({ channels: 2 });
  const bare = main.subarray(0, main.lastIndexOf(Buffer.from([0x00, 0x06, 0x00, 0x00])) + 1);
  const verdict = judge({ main: bare, channels });
  expect(verdict).toMatchObject({ verdict: "undecided", sealable: false });
  expect(verdict.reasons.join()).toContain("suppress-vmdesc");
});

test("the destination must be zeroed for zero pages in packets, or for pages nobody carried", () => {
  const needs = ({ main, channels }: Walked) => needsZeroedRam(main, channels);
  expect(needs(NEW)).toBe(true);
  expect(needs(OLD)).toBe(false);
  expect(needs(SINGLE)).toBe(false);
  expect(needs(walkMigration(buildMigration({ style: "10", zeroEvery: 0 })))).toBe(false);
  const once = walkMigration(buildMigration({ channels: 3, extraRounds: 0 }));
  expect(needs(once)).toBe(false);
  expect(needs({ main: once.main, channels: once.channels.slice(1) })).toBe(true);
  expect(needs(walkMigration({ main: vfio, channels: [] }))).toBe(true);
  expect(needsZeroedRam(null, NEW.channels)).toBe(true);
});

test("with x-ignore-shared the destination's RAM must never be zeroed", () => {
  expect(needsZeroedRam({ ...NEW.main, capabilities: ["x-ignore-shared"] }, NEW.channels)).toBe(false);
});
