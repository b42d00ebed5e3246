import { Buffer } from "node:buffer";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import type net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, describe, expect, test } from "vitest";
import { buildMigration } from "../support/fake-migration.ts";
import { type FakePeer, largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { peakOf } from "../support/peak-memory.ts";
import { type ListeningSave, useSaves } from "../support/save-under-test.ts";
import * as wire from "../support/stream-builder.ts";

const MIB = 2 ** 20;
const INIT_BYTES = 64;
const ALLOWANCE_MIB = 64;
/** Giving up waits until QEMU has connected all its channels, 3 s at most; the rest is a busy machine's. */
const PROMPT_MS = 8000;

const { scratch, listening } = useSaves();

afterEach(async () => {
  // No image, no temporary file, no socket.
  expect(await scratch.names()).toEqual([]);
});

interface Watched extends ListeningSave {
  /** MiB, at its end. */
  readonly peak: Promise<number>;
}

async function save(...args: readonly string[]): Promise<Watched> {
  const started = await listening(scratch.file("vm.mfd"), ["--workers", "2", ...args]);
  return { ...started, peak: peakOf(started.helper) };
}

const ordinaryPeaks = new Map<number, Promise<number>>();

/** What a save of so many channels and so many bytes needs that nothing is wrong with. */
function ordinary(channels: number, bytes = 0): Promise<number> {
  const shape = channels * 2 ** 32 + bytes;
  const known = ordinaryPeaks.get(shape) ?? measured(channels, bytes);
  ordinaryPeaks.set(shape, known);
  return known;
}

async function measured(channels: number, bytes: number): Promise<number> {
  const image = scratch.file("ordinary.mfd");
  const { helper, peer } = await listening(image, ["--workers", "2"]);
  const peak = peakOf(helper);
  const streams = bytes > 0 ? largeMigration(channels, bytes) : tinyMigration(channels, { style: "10" });
  await peer.play(streams);
  await helper.success();
  await rm(image);
  return peak;
}

/** How a save must end: soon after `since`, in one clear sentence, with no more memory than an ordinary one. */
interface Ending {
  readonly code: string;
  readonly status?: number;
  readonly words: RegExp;
  readonly details?: object;
  readonly channels?: number;
  readonly bytes?: number;
  readonly withinMs?: number;
}

async function expectFailure(
  { helper, peak }: Watched,
  ending: Ending,
  since = performance.now(),
): Promise<void> {
  const { code, status = 3, words, details = {}, channels = 2, bytes, withinMs = PROMPT_MS } = ending;
  const failure = await helper.failure();
  expect(failure).toMatchObject({ status, code, message: expect.stringMatching(words), details });
  expect(performance.now() - since).toBeLessThan(withinMs);
  expect((await peak) - (await ordinary(channels, bytes)), "MiB above an ordinary save").toBeLessThanOrEqual(
    ALLOWANCE_MIB,
  );
}

const NOTHING = Buffer.alloc(0);
const [main = NOTHING, first = NOTHING, second = NOTHING] = tinyMigration(2, { style: "10" });

/** A copy with a word of it replaced. */
function patched(stream: Buffer, at: number, word: number): Buffer {
  const copy = Buffer.from(stream);
  copy.writeUInt32BE(word >>> 0, at);
  return copy;
}

describe("what no QEMU says, each told with its channel and offset", () => {
  const INIT = INIT_BYTES;
  test.each<[string, Buffer, Omit<Ending, "code"> & { readonly code?: string }]>([
    ["main's magic", patched(main, 0, 0x5145564e), { words: /^connection 1: .*offset 0/ }],
    ["main's version", patched(main, 4, 2), { words: /^main channel: .*version 2.*offset 4/ }],
    ["a channel's magic", patched(first, 0, 0x11223345), { words: /^connection 1: .*offset 0/ }],
    ["a channel's version", patched(first, 4, 7), { words: /^connection 1: .*version 7.*offset 0/ }],
    ["number 255", Buffer.concat([wire.initPacket(255)]), { words: /number 255.*offset 24/ }],
    ["TLS", Buffer.from("16030102000100", "hex"), { code: "TLS_PEER", words: /tls-creds/ }],
    ["a packet's magic", patched(first, INIT, 0), { words: /^channel 0: .*0x0 .*offset 64/ }],
    ["a packet's version", patched(first, INIT + 4, 2), { words: /^channel 0: .*version 2.*offset 64/ }],
    ["flags", patched(first, INIT + 8, 0xffffffff), { words: /^channel 0: .*flags 0xffffffff.*offset 64/ }],
    ["pages allocated", patched(first, INIT + 12, 2 ** 31), { words: /^channel 0: .*2147483648 alloc.*64/ }],
    ["normal pages", patched(first, INIT + 16, 2 ** 32 - 1), { words: /^channel 0: .*4294967295 normal/ }],
    ["zero pages", patched(first, INIT + 32, 129), { words: /^channel 0: .*129 zero pages/ }],
    [
      "a payload of 4 GiB",
      Buffer.concat([
        wire.initPacket(0),
        wire.packet({ block: "mem", normal: [0], nextPacketSize: 2 ** 32 - 1 }),
      ]),
      { words: /^channel 0: .*4294967295 bytes of payload.*offset 64/ },
    ],
    [
      "a compressed payload of 4 GiB",
      Buffer.concat([
        wire.initPacket(0),
        wire.packet({ flags: 2, block: "mem", normal: [0], nextPacketSize: 2 ** 32 - 1 }),
      ]),
      { words: /^channel 0: .*4294967295 bytes of payload.*zlib.*offset 64/ },
    ],
    [
      "a machine name of 4 GiB",
      patched(main, 9, 2 ** 32 - 1),
      { words: /^main channel: .*machine.*offset 8/ },
    ],
    [
      "pages of 2 GiB",
      wire.configuration({ pageBits: 31 }),
      { words: /^main channel: .*31 bits.*offset \d+/ },
    ],
    [
      "4 billion capabilities",
      Buffer.concat([wire.configuration(), wire.subsection("capabilities", wire.be32(2 ** 32 - 1))]),
      { words: /^main channel: .*4294967295 capabilities.*offset \d+/ },
    ],
    [
      "RAM of 16 EiB",
      Buffer.concat([wire.configuration(), wire.startSection(2, Buffer.concat([Buffer.alloc(8, 0xff)]))]),
      { words: /^main channel: RAM begins.*offset \d+/ },
    ],
    [
      "a RAMBlock larger than RAM",
      Buffer.concat([
        wire.configuration(),
        wire.startSection(
          2,
          Buffer.concat([wire.be64(4096 + 4), wire.u8(3), Buffer.from("mem"), wire.be64(2 ** 50)]),
        ),
      ]),
      { words: /^main channel: .*"mem" with 1125899906842624 bytes.*offset \d+/ },
    ],
    [
      "a page beyond its RAMBlock",
      Buffer.concat([ramStart(), wire.pageRecord(2 ** 40, "mem", Buffer.alloc(4096))]),
      { words: /^main channel: .*0x10000000000 of the block "mem".*offset \d+/ },
    ],
    [
      "a compressed page of 4 GiB",
      Buffer.concat([ramStart(), wire.recordHead(0x100, 0, "mem"), wire.be32(2 ** 32 - 1)]),
      { words: /^main channel: .*compressed page has 4294967295 bytes.*offset \d+/ },
    ],
  ])("%s", async (_, bytes, ending) => {
    const run = await save();
    await run.peer.playWithoutEnd([bytes]);
    await expectFailure(run, { code: "PROTOCOL", ...ending });
  });
});

/** Up to the first record of RAM's first PART. */
function ramStart(): Buffer {
  const list = Buffer.concat([wire.blockList([{ name: "mem", bytes: MIB }]), wire.eosWord]);
  return Buffer.concat([wire.configuration(), wire.startSection(2, list), wire.u8(2), wire.be32(2)]);
}

describe("sets of channels that cannot be", () => {
  test.each<[string, readonly Buffer[], readonly string[], Omit<Ending, "status">]>([
    [
      "two mains",
      [main, main],
      [],
      { code: "CHANNEL_SET", words: /main channel/, details: { channel: "main" } },
    ],
    ["an id twice", [main, first, first], [], { code: "CHANNEL_SET", words: /channel 0/ }],
    [
      "an id beyond N",
      [main, wire.initPacket(254)],
      ["--channels", "2"],
      { code: "CHANNEL_SET", words: /channel 254/, details: { channel: 254, expected: 2 } },
    ],
  ])("%s", async (_, streams, args, ending) => {
    const run = await save(...args);
    await run.peer.playWithoutEnd(streams);
    await expectFailure(run, ending);
  });

  test.each<[string, readonly Buffer[], RegExp]>([
    ["an id missing", [main, second], /channel 0 of 2 is missing/],
    ["an id far beyond the others", [main, first, wire.initPacket(200)], /channel 1 of 201 is missing/],
  ])("%s", async (_, streams, words) => {
    const run = await save();
    await run.peer.play(streams);
    await expectFailure(run, { code: "STREAM_INCOMPLETE", words });
  });
});

describe("peers that take their time", () => {
  test("ten that connect and say nothing: --connect-timeout ends it", async () => {
    const run = await save("--connect-timeout", "1");
    for (let i = 0; i < 10; i++) await run.peer.connect();
    await expectFailure(run, { code: "CONNECT_TIMEOUT", status: 6, words: /after 1 s/ });
  });

  test("one that says nothing beside a whole migration: --connect-timeout ends it", async () => {
    const run = await save("--connect-timeout", "1");
    await run.peer.play([main, first, second]);
    await run.peer.connect();
    await expectFailure(run, { code: "CONNECT_TIMEOUT", status: 6, words: /connection 4 has not said/ });
  });

  /** Writes a byte every few milliseconds until the other side is gone. */
  async function dribble(socket: net.Socket, bytes: Buffer, everyMs: number): Promise<void> {
    socket.setNoDelay();
    for (const byte of bytes) {
      if (socket.destroyed || !socket.writable) return;
      socket.write(Buffer.of(byte));
      await sleep(everyMs);
    }
  }

  test("one that never gets to say what it is, a byte at a time: --connect-timeout ends it", async () => {
    const run = await save("--connect-timeout", "1", "--stall-timeout", "1");
    const dribbling = dribble(await run.peer.connect(), first.subarray(0, INIT_BYTES - 1), 50);
    await expectFailure(run, { code: "CONNECT_TIMEOUT", status: 6, words: /after 1 s/ });
    run.peer.vanish();
    await dribbling;
  });

  test("one that dribbles for good is no stall; the manager's signal ends it at any time", async () => {
    const run = await save("--connect-timeout", "1", "--stall-timeout", "1");
    await run.peer.playWithoutEnd([first, second]);
    const dribbling = dribble(await run.peer.connect(), main, 20);
    await sleep(2500);
    const since = performance.now();
    run.helper.signal("SIGTERM");
    await expectFailure(run, { code: "CANCELLED", status: 143, words: /SIGTERM/ }, since);
    run.peer.vanish();
    await dribbling;
  });

  test.each([
    ["main", [main.subarray(0, 300), first, second]],
    ["a channel, in a packet's header", [main, first.subarray(0, 700), second]],
    ["a channel, in a page", [main, first.subarray(0, 64 + 1344 + 1344 + 100), second]],
  ] as const)("%s stops in the middle and stays: --stall-timeout ends it", async (_, streams) => {
    const run = await save("--stall-timeout", "1");
    await run.peer.playWithoutEnd(streams);
    await expectFailure(run, { code: "STALLED", status: 6, words: /for 1 s/ });
  });

  test.each<[string, readonly Buffer[], RegExp]>([
    ["main", [main.subarray(0, 300), first, second], /main channel ended after 300 bytes/i],
    ["a channel", [main, first.subarray(0, 700), second], /channel 0 ended after 700 bytes, in the middle/],
  ])("%s stops in the middle and closes", async (_, streams, words) => {
    const run = await save();
    await run.peer.play(streams);
    await expectFailure(run, { code: "STREAM_INCOMPLETE", words });
  });
});

describe("bytes behind the end", () => {
  test.each<[string, readonly Buffer[], RegExp]>([
    [
      "main",
      [Buffer.concat([main, Buffer.from("more")]), first, second],
      /main channel ended after \d+ bytes/i,
    ],
    [
      "main: another beginning",
      [Buffer.concat([main, main.subarray(0, 90)]), first, second],
      /main channel ended/i,
    ],
    [
      "a channel: a word",
      [main, Buffer.concat([first, wire.be32(0x11223344)]), second],
      /channel 0 ended after/,
    ],
    [
      "a channel: a SYNC",
      [main, Buffer.concat([first, wire.syncPacket()]), second],
      /channel 0 has \d+ SYNCs/,
    ],
  ])("%s", async (_, streams, words) => {
    const run = await save();
    await run.peer.play(streams);
    await expectFailure(run, { code: "STREAM_INCOMPLETE", words });
  });
});

describe("floods", () => {
  /** Writes the same bytes again and again until the other side has had enough, or so often. */
  async function flood(peer: FakePeer, head: Buffer, piece: Buffer, times: number): Promise<net.Socket> {
    const socket = await peer.connect();
    const closed = once(socket, "close");
    socket.write(head);
    for (let i = 0; i < times && !socket.destroyed; i++) {
      if (!socket.write(piece)) {
        await Promise.race([once(socket, "drain"), closed]);
      }
    }
    return socket;
  }

  const repeated = (bytes: Buffer): Buffer => Buffer.concat(Array(Math.ceil(MIB / bytes.length)).fill(bytes));
  const shape = { channels: 1, bytes: 64 * MIB, withinMs: 30_000 };

  test("barriers without end on main", async () => {
    const run = await save();
    const list = Buffer.concat([wire.blockList([{ name: "mem", bytes: MIB }]), wire.flushWord, wire.eosWord]);
    const head = Buffer.concat([wire.configuration(), wire.startSection(2, list), wire.u8(2), wire.be32(2)]);
    void flood(run.peer, head, repeated(wire.flushWord), 64);
    await expectFailure(run, {
      ...shape,
      code: "PROTOCOL",
      words: /^main channel: .*1048576 barriers.*offset/,
    });
  });

  test("a vmdescription of nothing but brackets", async () => {
    const run = await save();
    const { main: whole } = buildMigration({ channels: 0 });
    const end = whole.lastIndexOf(Buffer.from("0006", "hex"));
    const text = `{"page_size":4096,"devices":[${"[".repeat(15 * MIB)}`;
    await run.peer.play([Buffer.concat([whole.subarray(0, end + 1), wire.vmdescription(text)])]);
    await expectFailure(run, { ...shape, code: "STREAM_INCOMPLETE", words: /main channel ended after/i });
  });

  test("what looks like the beginning of a vmdescription, over and over", async () => {
    const run = await save();
    const { main: whole } = buildMigration({ channels: 0 });
    const end = whole.lastIndexOf(Buffer.from("0006", "hex"));
    const socket = await flood(
      run.peer,
      whole.subarray(0, end),
      repeated(Buffer.from("0006000010007b", "hex")),
      48,
    );
    socket.end();
    await expectFailure(run, { ...shape, code: "STREAM_INCOMPLETE", words: /main channel ended after/i });
  });

  test("an early section that never ends", async () => {
    const run = await save();
    const head = Buffer.concat([wire.configuration(), wire.u8(4), wire.be32(9)]);
    const socket = await flood(run.peer, head, Buffer.alloc(MIB, 0x7e), 48);
    socket.end();
    await expectFailure(run, { ...shape, code: "STREAM_INCOMPLETE", words: /main channel ended after/i });
  });

  test("RAMBlocks without end", async () => {
    const run = await save();
    const head = [wire.configuration(), wire.startSection(2, wire.be64(2 ** 50 + 4)).subarray(0, -5)];
    const blocks = Array.from({ length: 6000 }, (_, i) =>
      Buffer.concat([wire.u8(255), Buffer.from(String(i).padEnd(255, "x")), wire.be64(4096)]),
    );
    await run.peer.playWithoutEnd([Buffer.concat([...head, ...blocks])]);
    await expectFailure(run, { code: "PROTOCOL", words: /^main channel: RAM lists.*too many.*offset/ });
  });

  test("1000 connections that say nothing", async () => {
    const run = await save();
    const since = performance.now();
    for (let i = 0; i < 1000; i++) {
      const connected = await run.peer.connect().then(
        () => true,
        () => false,
      );
      if (!connected) break;
    }
    await expectFailure(
      run,
      { code: "CHANNEL_SET", words: /more than 512 connections/, channels: 255 },
      since,
    );
  });

  test("1000 connections that each say that they are a channel", async () => {
    const run = await save();
    const since = performance.now();
    for (let i = 0; i < 1000; i++) {
      const socket = await run.peer.connect().catch(() => null);
      if (socket === null) break;
      socket.write(wire.initPacket(i % 255));
    }
    await expectFailure(run, { code: "CHANNEL_SET", words: /two connections|512/, channels: 255 }, since);
  });

  test("400 connections that come and go harm nothing", async () => {
    const run = await save("--channels", "2");
    for (let i = 0; i < 400; i++) (await run.peer.connect()).end();
    await run.peer.play([main, first, second]);
    await run.helper.success();
    expect((await run.peak) - (await ordinary(255))).toBeLessThanOrEqual(ALLOWANCE_MIB);
    await rm(scratch.file("vm.mfd"));
  });
});
