import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import path from "node:path";
import { constants, deflateSync } from "node:zlib";
import { expect, test } from "vitest";
import { tail } from "../../support/fake-migration.ts";
import { parseHexdump } from "../../support/hexdump.ts";
import { type Applied, applyStreams } from "../../support/plain-reader/streams.ts";
import { findRepoRoot } from "../../support/repo.ts";
import { readBySpec } from "../../support/spec-reader.ts";
import * as wire from "../../support/stream-builder.ts";

const PAGE = 4096;
const REST = tail({ timer: Buffer.alloc(9, 0x7e) });

function filled(...fills: number[]): Buffer {
  return Buffer.concat(fills.map((fill) => Buffer.alloc(PAGE, fill)));
}

/** Main with START, a PART for each of `epochs`, and END: legacy barriers, so one more SYNC than sections in between. */
function legacyMain(...epochs: Buffer[]): Buffer {
  const list = wire.blockList([{ name: "mem", bytes: 2 * PAGE }]);
  return Buffer.concat([
    wire.configuration(),
    wire.startSection(2, Buffer.concat([list, wire.eosWord])),
    ...epochs.map((records) => wire.partSection(2, Buffer.concat([records, wire.eosWord]))),
    wire.endSection(2, wire.eosWord),
    REST,
  ]);
}

/** A channel of these packets in each epoch between the first SYNC and the last. */
function channel(id: number, ...epochs: Buffer[][]): Buffer {
  const synced = epochs.flatMap((packets) => [...packets, wire.syncPacket()]);
  return Buffer.concat([wire.initPacket(id), wire.syncPacket(), ...synced, wire.syncPacket()]);
}

function data(offset: number, fill: number): Buffer {
  return wire.packet({ block: "mem", normal: [offset], payload: filled(fill) });
}

const NOTHING = Buffer.alloc(0);

function ramOf({ blocks }: Applied): Buffer {
  expect(blocks.map(({ name }) => name)).toEqual(["mem"]);
  return blocks[0]?.bytes ?? NOTHING;
}

test("it reads the worked example of the parallel image", () => {
  const page = readFileSync(path.join(findRepoRoot(), "docs/formats/image.md"), "utf8");
  const image = readBySpec(page, parseHexdump(page.match(/^```hexdump\n(.*?)\n```$/ms)?.[1] ?? ""));
  const [main = NOTHING, ...channels] = image.channels.map(({ bytes }) => bytes);
  const applied = applyStreams(main, channels);
  expect(ramOf(applied).equals(filled(0x5a, 0))).toBe(true);
  expect(applied).toMatchObject({
    machine: "pc-q35-10.0",
    barrierMode: "modern",
    barriers: 2,
    devices: ["timer"],
  });
  expect(applied.blocks[0]?.came).toEqual(["data", "zero"]);
});

test("what an epoch brings stands above the one before it, whichever channel it came on", () => {
  const newer = channel(0, [], [data(0, 2)]);
  const older = channel(1, [data(0, 1), data(PAGE, 3)], []);
  const main = legacyMain(NOTHING, wire.zeroRecord(PAGE, "mem"));
  for (const channels of [
    [newer, older],
    [older, newer],
  ]) {
    const applied = applyStreams(main, channels);
    expect(ramOf(applied).equals(filled(2, 0))).toBe(true);
    expect(applied.blocks[0]?.came).toEqual(["data", "zero"]);
  }
});

test("data may come again after zero, with a SYNC of its own packet, and never-sent pages are zero", () => {
  const merged = wire.packet({ flags: 1, block: "mem", normal: [0], payload: filled(7) });
  const stale = wire.packet({ block: "mem", nextPacketSize: 524288 });
  const only = Buffer.concat([
    wire.initPacket(0),
    ...[wire.syncPacket(), wire.syncPacket(), merged, stale, wire.syncPacket()],
  ]);
  const applied = applyStreams(legacyMain(wire.zeroRecord(0, "mem"), NOTHING), [only]);
  expect(ramOf(applied).equals(filled(7, 0))).toBe(true);
  expect(applied.blocks[0]?.came).toEqual(["data", null]);
});

test("a compressed channel is one zlib stream", () => {
  const whole = deflateSync(Buffer.concat([filled(1), filled(2)]), { finishFlush: constants.Z_SYNC_FLUSH });
  const pieces = [whole.subarray(0, 9), whole.subarray(9)];
  const packets = pieces.map((payload, n) =>
    wire.packet({ flags: 2, block: "mem", normal: [n * PAGE], payload }),
  );
  expect(ramOf(applyStreams(legacyMain(NOTHING), [channel(0, packets)])).equals(filled(1, 2))).toBe(true);
  const short = packets.slice(0, 1);
  expect(() => applyStreams(legacyMain(NOTHING), [channel(0, short)])).toThrow();
});

test("a single stream is applied in its order, and may have no END of RAM", () => {
  const records = [
    wire.pageRecord(0, "mem", filled(1)),
    wire.zeroRecord(PAGE, null),
    wire.pageRecord(PAGE, null, filled(9)),
  ];
  const main = legacyMain(Buffer.concat(records));
  expect(ramOf(applyStreams(main, [])).equals(filled(1, 9))).toBe(true);
  const end = wire.endSection(2, wire.eosWord);
  const background = Buffer.concat([main.subarray(0, main.length - REST.length - end.length), REST]);
  const applied = applyStreams(background, []);
  expect(ramOf(applied).equals(filled(1, 9))).toBe(true);
  expect([applied.hasRamEnd, applied.rest.equals(REST)]).toEqual([false, true]);
});

test("streams that contradict each other are refused", () => {
  const main = legacyMain(NOTHING);
  const other = wire.initPacket(1, "00112233-4455-6677-8899-aabbccddeeff");
  const syncs = Array.from({ length: 3 }, () => wire.syncPacket());
  const faults: Record<string, [Buffer, Buffer[]]> = {
    "channel 0 has 4 SYNCs, main 3 barriers": [main, [channel(0, [], [])]],
    "the channels call themselves 0,2": [main, [channel(0, []), channel(2, [])]],
    "the streams are of different VMs": [main, [channel(0, []), Buffer.concat([other, ...syncs])]],
    "1 pages came behind the last barrier": [main, [Buffer.concat([channel(0, []), data(0, 1)])]],
    "mem page 0 came twice in its last epoch": [main, [channel(0, [data(0, 1)]), channel(1, [data(0, 2)])]],
    "a page at 8192": [main, [channel(0, [data(2 * PAGE, 1)])]],
    "no packet of version 1 begins at 64": [main, [Buffer.concat([wire.initPacket(0), main])]],
    "bytes wanted at": [main, [channel(0, []).subarray(0, -1)]],
  };
  for (const [message, [stream, channels]] of Object.entries(faults)) {
    expect(() => applyStreams(stream, channels), message).toThrow(message);
  }
  const repaired = [channel(0, [data(0, 1)], [data(0, 3)]), channel(1, [data(0, 2)], [])];
  expect(ramOf(applyStreams(legacyMain(NOTHING, NOTHING), repaired)).equals(filled(3, 0))).toBe(true);
});
