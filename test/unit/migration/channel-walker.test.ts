import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { ChannelWalker } from "../../../src/formats/migration/channel-walker.ts";
import { protocolFailure } from "../../support/expect-failure.ts";
import { buildMigration } from "../../support/fake-migration.ts";
import { configuration, initPacket, syncPacket, ZERO_UUID } from "../../support/stream-builder.ts";

test("main is known at its fourth byte, a multifd channel behind its init packet", () => {
  const main = new ChannelWalker();
  main.push(Buffer.from("QEV"));
  expect(main.identity).toBeNull();
  main.push(Buffer.from("M"));
  expect(main.identity).toEqual({ kind: "main" });

  const multifd = new ChannelWalker();
  multifd.push(initPacket(5).subarray(0, 63));
  expect(multifd.identity).toBeNull();
  multifd.push(initPacket(5).subarray(63));
  expect(multifd.identity).toEqual({ kind: "multifd", id: 5, uuid: ZERO_UUID });
  expect(multifd.main).toBeNull();
});

test("every byte reaches the right walker, offsets included", () => {
  const { main, channels } = buildMigration({ channels: 1 });
  for (const stream of [main, ...channels]) {
    const walker = new ChannelWalker();
    for (const byte of stream.subarray(0, 10)) walker.push(Uint8Array.of(byte));
    walker.push(stream.subarray(10));
    expect(walker.finish().bytes).toBe(stream.length);
  }
});

test("what main knows early can be asked for", () => {
  const walker = new ChannelWalker();
  walker.push(configuration({ machine: "pc-i440fx-7.2" }));
  expect(walker.main?.machine).toBe("pc-i440fx-7.2");
});

test("TLS is called by its name, with what to do", () => {
  const walker = new ChannelWalker();
  const hello = Buffer.from("16030100c8010000", "hex");
  expect(() => walker.push(hello)).toThrow(expect.objectContaining({ code: "TLS_PEER" }));
  expect(() => new ChannelWalker().push(hello)).toThrow("tls-creds");
});

test("what is wrong reads on from the channel's name", () => {
  const refused: [bytes: Buffer, words: RegExp][] = [
    [Buffer.from("GET /"), /^begins with 47 45 54 20, which is neither .* \(offset 0\)$/],
    [
      Buffer.concat([configuration(), Buffer.alloc(5, 0x08).fill(0, 1)]),
      /^has a command of type 0 \(offset \d+\)$/,
    ],
    [
      Buffer.concat([initPacket(3), Buffer.alloc(64)]),
      /^has 0x0 where a packet must begin .* \(offset 64\)$/,
    ],
    [Buffer.from("16030100c8010000", "hex"), /^the peer opened a TLS session: .*[^.]$/],
  ];
  for (const [bytes, words] of refused) {
    const message = expect.stringMatching(words);
    expect(() => new ChannelWalker().push(bytes)).toThrow(expect.objectContaining({ message }));
  }
});

test("other bytes are shown in hex", () => {
  const walker = new ChannelWalker();
  walker.push(Buffer.from("GE"));
  expect(() => walker.push(Buffer.from("T /"))).toThrow(expect.objectContaining(protocolFailure(0)));
  expect(() => new ChannelWalker().push(Buffer.from("GET /"))).toThrow("47 45 54 20");
});

test.each([0, 3, 4, 63])("a channel that ends after %d bytes has not said what it is", (length) => {
  const walker = new ChannelWalker();
  walker.push(Buffer.concat([initPacket(0), syncPacket()]).subarray(0, length));
  expect(walker.identity).toBeNull();
  expect(() => walker.finish()).toThrow(`ended after ${length} bytes, before saying what it is`);
});
