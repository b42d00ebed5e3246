import { Buffer } from "node:buffer";
import type net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test } from "vitest";
import { tinyMigration } from "../support/fake-peer.ts";
import { type Ending, useHostileSaves } from "../support/hostile-saves.ts";
import * as wire from "../support/stream-builder.ts";

const MIB = 2 ** 20;
const INIT_BYTES = 64;

const { save, expectFailure } = useHostileSaves();

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
    const run = await save("--connect-timeout", "2");
    for (let i = 0; i < 10; i++) await run.peer.connect();
    await expectFailure(run, { code: "CONNECT_TIMEOUT", status: 6, words: /after 2 s/ });
  });

  test("one that says nothing beside a whole migration: --connect-timeout ends it", async () => {
    const run = await save("--connect-timeout", "2");
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
    const run = await save("--connect-timeout", "2", "--stall-timeout", "1");
    const dribbling = dribble(await run.peer.connect(), first.subarray(0, INIT_BYTES - 1), 50);
    await expectFailure(run, { code: "CONNECT_TIMEOUT", status: 6, words: /after 2 s/ });
    run.peer.vanish();
    await dribbling;
  });

  test("one that dribbles for good is no stall; the manager's signal ends it at any time", async () => {
    const run = await save("--connect-timeout", "2", "--stall-timeout", "1");
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
