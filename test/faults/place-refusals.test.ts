import { Buffer } from "node:buffer";
import { deflateSync } from "node:zlib";
import { describe, test } from "vitest";
import { type Ending, useHostileSaves } from "../support/hostile-saves.ts";
import * as wire from "../support/stream-builder.ts";

/*
 * What `save --format mapped-ram` refuses, each by name, before anything is published and without much memory. Whatever
 * is refused in either format stands in hostile-peers.
 */

const MIB = 2 ** 20;
const PAGE = 4096;
const { save, expectFailure } = useHostileSaves();
const mapped = (...args: readonly string[]) => save("--format", "mapped-ram", ...args);

const UNSUPPORTED = { code: "UNSUPPORTED_STREAM" } as const;
const PROTOCOL = { code: "PROTOCOL" } as const;
const ZLIB = 0x02;
const ZSTD = 0x04;

interface MainOptions extends wire.ConfigurationOptions {
  readonly blocks?: readonly wire.BlockSpec[];
  readonly records?: Buffer;
}

/** Main up to its first barrier and some records behind it, without an end. */
function main({ blocks = [{ name: "mem", bytes: MIB }], records, ...rest }: MainOptions = {}): Buffer {
  const ignoreShared = rest.capabilities?.includes("x-ignore-shared") ?? false;
  const list = Buffer.concat([wire.blockList(blocks, ignoreShared), wire.flushWord, wire.eosWord]);
  const part = [wire.u8(2), wire.be32(2), records ?? Buffer.alloc(0)];
  return Buffer.concat([wire.configuration(rest), wire.startSection(2, list), ...part]);
}

/** A channel with its first SYNC and a packet. */
function channel(...packets: readonly Buffer[]): Buffer {
  return Buffer.concat([wire.initPacket(0), wire.syncPacket(), ...packets]);
}

type Case = readonly [what: string, streams: readonly Buffer[], ending: Omit<Ending, "status">];

async function expectRefused([, streams, ending]: Case): Promise<void> {
  const run = await mapped();
  await run.peer.playWithoutEnd(streams);
  await expectFailure(run, { channels: 1, ...ending });
}

function onMain(what: string, records: Buffer, words: RegExp): Case {
  return [what, [main({ records })], { ...UNSUPPORTED, words }];
}

describe("what mapped-ram cannot carry: the advice is --format stream", () => {
  const page = Buffer.alloc(PAGE, 0x5a);
  test.each<Case>([
    onMain(
      "XBZRLE",
      wire.xbzrleRecord(0, "mem", Buffer.from([1])),
      /^main channel: .*encoded.*xbzrle.*stream/i,
    ),
    onMain("compress", wire.compressedRecord(0, "mem", deflateSync(page)), /encoded.*compress.*stream/),
    [
      "x-ignore-shared",
      [main({ capabilities: ["x-ignore-shared"] })],
      { ...UNSUPPORTED, words: /capability x-ignore-shared.*--format stream/ },
    ],
    [
      "mapped-ram itself",
      [main({ capabilities: ["mapped-ram"] })],
      { ...UNSUPPORTED, words: /mapped-ram is on.*--format stream/ },
    ],
    [
      "another iterable device",
      [Buffer.concat([wire.configuration(), wire.startSection(9, Buffer.alloc(64), "spapr/htab", 1)])],
      { ...UNSUPPORTED, words: /"spapr\/htab".*--format stream/ },
    ],
    [
      "postcopy",
      [Buffer.concat([wire.configuration(), wire.command(3, Buffer.alloc(16))])],
      { ...UNSUPPORTED, words: /POSTCOPY_ADVISE.*--format stream/ },
    ],
    [
      "an unknown part of the configuration",
      [Buffer.concat([wire.configuration(), wire.subsection("rings", wire.be32(1))])],
      { ...UNSUPPORTED, words: /unknown part configuration\/rings.*--format stream/ },
    ],
    [
      "pages of 1 KiB",
      [main({ pageBits: 10 })],
      { ...UNSUPPORTED, words: /pages have 1024 bytes.*--format stream/ },
    ],
    [
      "pages of 64 KiB on channels",
      [main({ pageBits: 16 }), channel(wire.packet({ block: "mem", normal: [0] }))],
      { ...UNSUPPORTED, words: /^channel 0: .*65536 bytes on multifd.*--format stream/ },
    ],
    ["no RAM", [main({ blocks: [] })], { ...UNSUPPORTED, words: /no RAM.*--format stream/ }],
    [
      "device state on a channel",
      [main(), channel(wire.deviceStatePacket("vfio", 0, Buffer.alloc(100)))],
      { ...UNSUPPORTED, words: /^channel 0: .*device state.*vfio.*--format stream/ },
    ],
    ...(
      [
        ["qpl", 0x08],
        ["uadk", 0x10],
        ["qatzip", 0x20],
      ] as const
    ).map(
      ([method, flags]): Case => [
        method,
        [main(), channel(wire.packet({ flags, block: "mem", normal: [0] }))],
        { ...UNSUPPORTED, words: new RegExp(`^channel 0: .*${method}.*--format stream`) },
      ],
    ),
  ])("%s", async (...refused) => expectRefused(refused));

  test.each(["crc32", "none"])("more than 4 TiB of RAM, --checksum %s", async (checksum) => {
    for (const bytes of [4 * 2 ** 40 + PAGE, 2 ** 53 - PAGE]) {
      const run = await mapped("--checksum", checksum);
      await run.peer.playWithoutEnd([main({ blocks: [{ name: "mem", bytes }] })]);
      await expectFailure(run, { ...UNSUPPORTED, words: /4 TiB.*--format stream/, channels: 1 });
    }
  });

  test("an early section that never ends", async () => {
    const run = await mapped();
    const head = Buffer.concat([wire.configuration(), wire.u8(4), wire.be32(9), Buffer.alloc(2 * MIB, 0x7e)]);
    await run.peer.playWithoutEnd([head]);
    await expectFailure(run, {
      ...UNSUPPORTED,
      words: /1048576 bytes stand before its RAM/,
      channels: 1,
    });
  });
});

describe("packets that cannot be, each told with channel and offset", () => {
  const beyond = { ...PROTOCOL, words: /^channel 0: .*"mem", which has 1048576.*offset 1408/ };
  test.each<Case>([
    ["a page behind its block", [main(), channel(wire.packet({ block: "mem", normal: [MIB] }))], beyond],
    [
      "a page far behind it",
      [main(), channel(wire.packet({ block: "mem", normal: [2 ** 53 - PAGE] }))],
      beyond,
    ],
    ["an unaligned page", [main(), channel(wire.packet({ block: "mem", normal: [512] }))], beyond],
    ["a zero page behind its block", [main(), channel(wire.packet({ block: "mem", zero: [MIB] }))], beyond],
    ["an unaligned zero page", [main(), channel(wire.packet({ block: "mem", zero: [1] }))], beyond],
    [
      "a block that main has not",
      [main(), channel(wire.packet({ block: "me", normal: [0] }))],
      { ...PROTOCOL, words: /^channel 0: .*RAMBlock "me", which main has not.*offset 1408/ },
    ],
  ])("%s", async (...refused) => expectRefused(refused));

  test("packets that come before the block list are held to it", async () => {
    const run = await mapped();
    const early = [wire.initPacket(0), wire.packet({ block: "mem", normal: [MIB] }), wire.syncPacket()];
    await run.peer.playWithoutEnd([Buffer.concat(early)]);
    await run.helper.waitEvent("channel");
    await run.peer.playWithoutEnd([main()]);
    await expectFailure(run, {
      ...PROTOCOL,
      words: /^channel 0: .*"mem", which has 1048576.*offset 64/,
      channels: 1,
    });
  });
});

describe("payloads that do not unpack to their pages", () => {
  const packed = (flags: number, payload: Buffer): Buffer =>
    wire.packet({ flags, block: "mem", normal: [0], payload });
  const deflated = (bytes: number): Buffer => deflateSync(Buffer.alloc(bytes, 7), { finishFlush: 2 });
  const cannot = (method: string, why: string): Omit<Ending, "status"> => ({
    ...PROTOCOL,
    words: new RegExp(`^channel 0: .*unpacked with ${method}: ${why}.*offset 1408`),
  });

  /** A frame of blocks of one repeated byte: 4 bytes make as much as 2 MiB. */
  function zstdFrame(window: number, blocks: readonly number[], last = false): Buffer {
    const head = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0x00, window]);
    const runs = blocks.map((bytes, n) => {
      const end = last && n === blocks.length - 1 ? 1 : 0;
      const block = Buffer.alloc(4, 7);
      block.writeUIntLE((bytes << 3) | (1 << 1) | end, 0, 3);
      return block;
    });
    return Buffer.concat([head, ...runs]);
  }
  const SMALL_WINDOW = 9 << 3;

  test.each<Case>([
    ["zlib: garbage", [main(), channel(packed(ZLIB, Buffer.alloc(400, 0xee)))], cannot("zlib", "")],
    ["zlib: a byte too little", [main(), channel(packed(ZLIB, deflated(PAGE - 1)))], cannot("zlib", "4095")],
    [
      "zlib: a byte too much",
      [main(), channel(packed(ZLIB, deflated(PAGE + 1)))],
      cannot("zlib", "more than 4096"),
    ],
    ["zlib: 1 GiB", [main(), channel(packed(ZLIB, deflated(1024 * MIB)))], cannot("zlib", "more than 4096")],
    [
      "zlib: an end, and more behind it",
      [
        main(),
        channel(
          wire.packet({ flags: ZLIB, block: "mem", normal: [0], payload: deflateSync(Buffer.alloc(PAGE)) }),
          packed(ZLIB, deflated(PAGE)),
        ),
      ],
      { ...PROTOCOL, words: /^channel 0: .*unpacked with zlib/ },
    ],
    ["zstd: garbage", [main(), channel(packed(ZSTD, Buffer.alloc(400, 0xee)))], cannot("zstd", "no frame")],
    [
      "zstd: a byte too little",
      [main(), channel(packed(ZSTD, zstdFrame(SMALL_WINDOW, [PAGE - 1])))],
      cannot("zstd", "4095"),
    ],
    [
      "zstd: 64 GiB",
      [main(), channel(packed(ZSTD, zstdFrame(SMALL_WINDOW, Array(500_000).fill(2 ** 17))))],
      cannot("zstd", "more than 4096"),
    ],
    [
      "zstd: a window of 1 GiB",
      [main(), channel(packed(ZSTD, zstdFrame(20 << 3, [PAGE])))],
      cannot("zstd", "its window"),
    ],
    [
      "zstd: the end of a frame, which another may follow",
      [main(), channel(packed(ZSTD, zstdFrame(SMALL_WINDOW, [PAGE], true)))],
      cannot("zstd", "the stream ends"),
    ],
    [
      "zstd: a cut block",
      [main(), channel(packed(ZSTD, zstdFrame(SMALL_WINDOW, [PAGE]).subarray(0, -1)))],
      cannot("zstd", "a block is cut"),
    ],
  ])("%s", async (...refused) => expectRefused(refused));
});

describe("block lists at their limits", () => {
  test("4096 blocks with names of 255 characters", async () => {
    const blocks = Array.from({ length: 4096 }, (_, n) => ({
      name: `${n}`.padEnd(255, "x"),
      bytes: PAGE,
    }));
    const run = await mapped();
    await run.peer.playWithoutEnd([main({ blocks, records: wire.be64(0x400) })]);
    // Laid out whole, and then refused for the word behind them.
    await expectFailure(run, { ...PROTOCOL, words: /^main channel: /, channels: 1 });
  });
});
