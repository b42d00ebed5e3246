import { Buffer } from "node:buffer";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import type net from "node:net";
import { describe, expect, test } from "vitest";
import { buildMigration } from "../support/fake-migration.ts";
import { type FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { ALLOWANCE_MIB, useHostileSaves } from "../support/hostile-saves.ts";
import * as wire from "../support/stream-builder.ts";

const MIB = 2 ** 20;

const { scratch, save, ordinary, expectFailure } = useHostileSaves();

describe("floods", () => {
  /** Writes the same bytes again and again until the other side has had enough, or so often. */
  async function flood(peer: FakePeer, head: Buffer, piece: Buffer, times: number): Promise<net.Socket> {
    const socket = await peer.connect();
    const closed = once(socket, "close").catch(() => undefined);
    socket.write(head);
    for (let i = 0; i < times && !socket.destroyed; i++) {
      if (!socket.write(piece)) {
        await Promise.race([once(socket, "drain").catch(() => undefined), closed]);
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
    await run.peer.play(tinyMigration(2, { style: "10" }));
    await run.helper.success();
    expect((await run.peak) - (await ordinary(255))).toBeLessThanOrEqual(ALLOWANCE_MIB);
    await rm(scratch.file("vm.mfd"));
  });
});
