import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { inspect, verify } from "../../src/index.ts";
import { tinyMigration } from "../support/fake-peer.ts";
import { goodImage, useSaves } from "../support/save-under-test.ts";
import * as wire from "../support/stream-builder.ts";

const { scratch, listening } = useSaves();

/** Every failure here must leave the image that stood there before, and nothing else. */
let before: Buffer;
beforeEach(async () => {
  before = await goodImage();
  await writeFile(scratch.file("vm.mfd"), before);
});

async function expectUntouched(): Promise<void> {
  expect(await scratch.names()).toEqual(["vm.mfd"]);
  expect(before.equals(await scratch.read("vm.mfd"))).toBe(true);
}

const save = (...args: readonly string[]) => listening(scratch.file("vm.mfd"), args);

describe("the set of channels", () => {
  afterEach(expectUntouched);

  test("one channel too many", async () => {
    const { helper, peer } = await save("--channels", "2");
    await peer.playWithoutEnd(tinyMigration(3));
    expect(await helper.failure()).toMatchObject({ status: 3, code: "CHANNEL_SET", details: { channel: 2 } });
  });

  test("one channel too few", async () => {
    const { helper, peer } = await save("--channels", "3");
    await peer.play(tinyMigration(2));
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "CHANNEL_SET",
      message: expect.stringContaining("2 of 3"),
    });
  });

  test("multifd on where no channel is expected", async () => {
    const { helper, peer } = await save("--channels", "0");
    await peer.playWithoutEnd(tinyMigration(1));
    expect(await helper.failure()).toMatchObject({ status: 3, code: "CHANNEL_SET" });
  });

  test("an id beyond the expected ones", async () => {
    const { helper, peer } = await save("--channels", "2");
    const [main = wire.eofByte, first = wire.eofByte] = tinyMigration(2);
    await peer.playWithoutEnd([main, first, wire.initPacket(7)]);
    expect(await helper.failure()).toMatchObject({ status: 3, code: "CHANNEL_SET", details: { channel: 7 } });
  });

  test("a gap in the ids, without --channels", async () => {
    const { helper, peer } = await save();
    const [main = wire.eofByte, first = wire.eofByte, , third = wire.eofByte] = tinyMigration(3);
    await peer.play([main, first, third]);
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "STREAM_INCOMPLETE",
      message: expect.stringMatching(/channel 1 of 3 is missing/),
    });
  });

  test("the highest id missing, without --channels", async () => {
    const { helper, peer } = await save();
    // Nothing but the pages that nobody carried tells of it.
    await peer.play(tinyMigration(3, { extraRounds: 0 }).slice(0, 3));
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "STREAM_UNDECIDED",
      message: expect.stringContaining("pages of RAM travelled"),
    });
  });

  test("the same id twice", async () => {
    const { helper, peer } = await save();
    const [main = wire.eofByte, first = wire.eofByte] = tinyMigration(2);
    await peer.playWithoutEnd([main, first, first]);
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "CHANNEL_SET",
      message: expect.stringContaining("channel 0"),
    });
  });

  test("two main channels", async () => {
    const { helper, peer } = await save();
    const [main = wire.eofByte] = tinyMigration(0);
    await peer.playWithoutEnd([main, main]);
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "CHANNEL_SET",
      details: { channel: "main" },
    });
  });

  test("channels without main", async () => {
    const { helper, peer } = await save();
    await peer.play(tinyMigration(2).slice(1));
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "STREAM_INCOMPLETE",
      message: expect.stringContaining("none was the main channel"),
    });
  });
});

describe("what is no migration", () => {
  afterEach(expectUntouched);

  test("TLS", async () => {
    const { helper, peer } = await save();
    await peer.playWithoutEnd([Buffer.from("16030100f8010000f40303", "hex")]);
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "TLS_PEER",
      message: expect.stringContaining("tls-creds"),
    });
  });

  test("a browser", async () => {
    const { helper, peer } = await save();
    await peer.playWithoutEnd([Buffer.from("GET / HTTP/1.1\r\n\r\n")]);
    expect(await helper.failure()).toMatchObject({ status: 3, code: "PROTOCOL" });
  });

  test("a multifd packet with impossible flags, told with channel and offset", async () => {
    const { helper, peer } = await save();
    await peer.playWithoutEnd([Buffer.concat([wire.initPacket(5), wire.packet({ flags: 0x8000 })])]);
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "PROTOCOL",
      details: { channel: 5, offset: 64 },
    });
  });

  test("a peer of another kind beside a good migration", async () => {
    const { helper, peer } = await save();
    await peer.playWithoutEnd([...tinyMigration(), Buffer.alloc(100, 0xee)]);
    expect(await helper.failure()).toMatchObject({ status: 3, code: "PROTOCOL" });
  });
});

describe("waiting", () => {
  afterEach(expectUntouched);

  test("nobody connects", async () => {
    const { helper } = await save("--connect-timeout", "0.3");
    expect(await helper.failure()).toMatchObject({
      status: 6,
      code: "CONNECT_TIMEOUT",
      details: { main: false, channels: 0 },
    });
  });

  test("a channel that never comes", async () => {
    const { helper, peer } = await save("--connect-timeout", "3", "--channels", "2");
    await peer.playWithoutEnd(tinyMigration(2).slice(0, 2));
    expect(await helper.failure()).toMatchObject({
      status: 6,
      code: "CONNECT_TIMEOUT",
      details: { main: true, channels: 1 },
    });
  });

  test("a gap in the ids, with nothing said of how many there are", async () => {
    const { helper, peer } = await save("--connect-timeout", "2");
    const [main, first, , third] = tinyMigration(3) as [Buffer, Buffer, Buffer, Buffer];
    await peer.playWithoutEnd([main, first, third]);
    expect(await helper.failure()).toMatchObject({ status: 6, code: "CONNECT_TIMEOUT" });
  });

  test("a connection that never says what it is, beside a whole migration", async () => {
    const { helper, peer } = await save("--connect-timeout", "2.5");
    await peer.connect();
    await peer.play(tinyMigration());
    expect(await helper.failure()).toMatchObject({ status: 6, code: "CONNECT_TIMEOUT" });
  });

  test("no byte on any channel for --stall-timeout", async () => {
    const { helper, peer } = await save("--stall-timeout", "0.5");
    const [main = wire.eofByte, ...channels] = tinyMigration();
    await peer.playWithoutEnd([main.subarray(0, 100), ...channels]);
    expect(await helper.failure()).toMatchObject({ status: 6, code: "STALLED" });
  });

  test("--stall-timeout does not count the time before the first connection", async () => {
    const { helper } = await save("--stall-timeout", "0.1", "--connect-timeout", "0.6");
    expect(await helper.failure()).toMatchObject({ status: 6, code: "CONNECT_TIMEOUT" });
  });
});

describe("what harms nothing", () => {
  test.each([2, 255])(
    "connections that close without a byte, before and between %i channels",
    async (count) => {
      const { helper, peer } = await save("--channels", String(count));
      const [main = wire.eofByte, ...channels] = tinyMigration(count);
      for (let i = 0; i < 5; i++) (await peer.connect()).end();
      const mainSocket = await peer.connect();
      mainSocket.write(main.subarray(0, 50));
      (await peer.connect()).destroy();
      await helper.waitEvent("channel");
      await peer.play(channels);
      mainSocket.end(main.subarray(50));
      expect(await helper.success()).toMatchObject({ image: { multifdChannels: count } });
    },
  );

  test("channels before main, each byte alone", async () => {
    const { helper, peer } = await save("--channels", "2");
    const [main = wire.eofByte, ...channels] = tinyMigration();
    await peer.play(channels);
    const socket = (await peer.connect()).setNoDelay();
    for (const byte of main.subarray(0, 120)) {
      socket.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    socket.end(main.subarray(120));
    const completed = await helper.success();
    expect(completed.bytes).toBe(main.length + channels.reduce((sum, { length }) => sum + length, 0));
  });

  test.each([0, 1, 2, 16, 64, 255])("%i channels, 2 workers, arriving in reverse order", async (channels) => {
    const { helper, peer } = await save("--workers", "2", "--channels", String(channels));
    await peer.play(tinyMigration(channels, { style: "10" }).reverse());
    expect(await helper.success()).toMatchObject({ image: { multifdChannels: channels } });
    expect(await verify({ image: scratch.file("vm.mfd"), workers: 2 })).toMatchObject({
      checked: "checksums and structure",
    });
    expect(helper.events.filter(({ event }) => event === "channel")).toHaveLength(channels + 1);
  });

  test("a helper that is stopped between two accepts loses no channel", async () => {
    for (let round = 0; round < 5; round++) {
      const { helper, peer } = await save();
      const [main = wire.eofByte, first = wire.eofByte, ...late] = tinyMigration(4);
      const mainSocket = await peer.connect();
      mainSocket.write(main.subarray(0, 60));
      await peer.play([first]);
      await helper.waitEvent("channel", ({ channel }) => channel === "main");
      helper.signal("SIGSTOP");
      // Everything else happens while it sees nothing: a small QEMU has completed and is gone by then.
      await peer.play(late);
      mainSocket.end(main.subarray(60));
      await sleep(20);
      helper.signal("SIGCONT");
      expect(await helper.success()).toMatchObject({ image: { multifdChannels: 4 } });
    }
  });
});

describe("streams that prove nothing", () => {
  /** A migration with an iterable device besides RAM, whose sections have no length. */
  function undecidable(): Buffer[] {
    const [main = wire.eofByte, ...channels] = tinyMigration();
    const start = main.indexOf(wire.u8(0x01), 8 + 5 + "pc-q35-7.2".length);
    const other = wire.startSection(9, Buffer.alloc(64, 0x33), "spapr/htab", 1);
    return [Buffer.concat([main.subarray(0, start), other, main.subarray(start)]), ...channels];
  }
  /** The same without its vmdescription: nothing at its end can be recognised either. */
  function endless(): Buffer[] {
    const [main = wire.eofByte, ...channels] = undecidable();
    return [main.subarray(0, main.lastIndexOf(Buffer.from([0x00, 0x06, 0x00, 0x00]))), ...channels];
  }

  test("without --hold nothing is saved, and the advice is --hold", async () => {
    const { helper, peer } = await save();
    await peer.play(endless());
    expect(await helper.failure()).toMatchObject({
      status: 3,
      code: "STREAM_UNDECIDED",
      message: expect.stringContaining("--hold"),
    });
    await expectUntouched();
  });

  test("with --hold the manager's commit publishes, and the image says so", async () => {
    const { helper, peer } = await save("--hold");
    await peer.play(endless());
    expect(await helper.waitEvent("drained")).toMatchObject({ evidence: { verdict: "undecided" } });
    helper.say("commit");
    await helper.success();
    expect(await inspect({ image: scratch.file("vm.mfd") })).toMatchObject({
      sealed: true,
      metadata: { evidence: { verdict: "undecided", decidedBy: "commit" } },
    });
  });

  test("an incomplete stream is not published by a commit", async () => {
    const { helper, peer } = await save("--hold");
    helper.say("commit");
    const [main = wire.eofByte, first = wire.eofByte] = tinyMigration();
    await peer.play([main, first.subarray(0, -1)]);
    expect(await helper.failure()).toMatchObject({ status: 3, code: "STREAM_INCOMPLETE" });
    await expectUntouched();
  });
});
