import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { METHODS, MultifdWalker } from "../../../src/formats/migration/multifd-packet.ts";
import type { MultifdSummary } from "../../../src/formats/migration/summary.ts";
import { protocolFailure } from "../../support/expect-failure.ts";
import { be32, deviceStatePacket, initPacket, packet, syncPacket } from "../../support/stream-builder.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";

function walk(...packets: Buffer[]): MultifdSummary {
  const walker = new MultifdWalker();
  walker.push(Buffer.concat(packets));
  return walker.finish();
}

function refusal(...packets: Buffer[]): unknown {
  try {
    walk(initPacket(3), ...packets);
  } catch (error) {
    return error;
  }
  return "nothing was thrown";
}

test("id and UUID are known as soon as the init packet has passed", () => {
  const walker = new MultifdWalker();
  walker.push(initPacket(7, UUID).subarray(0, 63));
  expect([walker.id, walker.uuid]).toEqual([null, null]);
  walker.push(initPacket(7, UUID).subarray(63));
  expect([walker.id, walker.uuid]).toEqual([7, UUID]);
});

test("a channel of QEMU 10 is counted: data, zero pages, lone SYNCs with pages_alloc 0", () => {
  const data = packet({ block: "mem", normal: [0, 8192], zero: [4096] });
  expect(walk(initPacket(0, UUID), syncPacket(), data, syncPacket())).toEqual({
    kind: "multifd",
    id: 0,
    uuid: UUID,
    bytes: 64 + 3 * 1344 + 8192,
    packets: 3,
    syncEnds: [64 + 1344, 64 + 3 * 1344 + 8192],
    normalPages: 2,
    zeroPages: 1,
    deviceStatePackets: 0,
    compression: "none",
    atPacketBoundary: true,
  });
});

test("7.2's SYNC with data ends behind its payload, and stale sizes in empty packets mean nothing", () => {
  const merged = packet({ flags: 0x01, block: "mem", normal: [0] });
  const empty = packet({ block: "mem", nextPacketSize: 524288 });
  const summary = walk(initPacket(1), merged, empty);
  expect(summary.syncEnds).toEqual([64 + 1344 + 4096]);
  expect(summary).toMatchObject({ bytes: 64 + 2 * 1344 + 4096, atPacketBoundary: true, packets: 2 });
});

test("a device state packet has its own short header", () => {
  const summary = walk(initPacket(0), deviceStatePacket("vfio", 0, Buffer.alloc(1000)), syncPacket());
  expect(summary).toMatchObject({ deviceStatePackets: 1, compression: null, normalPages: 0, packets: 2 });
  expect(summary.syncEnds).toEqual([64 + 276 + 1000 + 1344]);
});

test.each(Object.entries(METHODS))("compression %s is read from packets that carry pages", (name, flags) => {
  const payload = Buffer.alloc(4096, 1);
  const summary = walk(initPacket(0), syncPacket(), packet({ flags, block: "mem", normal: [0], payload }));
  expect(summary).toMatchObject({ compression: name, atPacketBoundary: true });
});

test("a channel that carried no page has no compression", () => {
  expect(walk(initPacket(0), syncPacket()).compression).toBeNull();
});

test("a stream cut in a header or in a payload is described as not at a packet boundary", () => {
  const whole = Buffer.concat([initPacket(0), packet({ block: "mem", normal: [0] })]);
  for (const length of [65, 64 + 1343, 64 + 1344, whole.length - 1]) {
    const summary = walk(whole.subarray(0, length));
    expect(summary).toMatchObject({ bytes: length, atPacketBoundary: false, packets: 0 });
  }
  expect(walk(whole.subarray(0, 64)).atPacketBoundary).toBe(true);
});

test("a stream cut in the init packet is nobody's", () => {
  const walker = new MultifdWalker();
  walker.push(initPacket(0).subarray(0, 63));
  expect(() => walker.finish()).toThrow("ended after 63 bytes, before saying what it is");
});

const data = packet({ block: "mem", normal: [0] });
const zlib = (size: number) => packet({ flags: 0x02, block: "mem", normal: [0], nextPacketSize: size });
test.each([
  ["a wrong magic", be32Patched(data, 0, 0x11223345), "0x11223345"],
  ["a wrong version", be32Patched(data, 4, 2), "version 2"],
  ["an unknown flag", packet({ flags: 0x80 }), "flags 0x80"],
  ["two methods at once", packet({ flags: 0x06 }), "flags 0x6"],
  ["device state with SYNC", packet({ flags: 0x41 }), "flags 0x41"],
  ["more than 128 pages", be32Patched(packet({ block: "mem", zero: [0] }), 16, 128), "128 normal and 1 zero"],
  ["room for more than 128 pages", packet({ pagesAllocated: 129 }), "129 allocated"],
  ["a compression of no pages", packet({ flags: 0x05 }), "flags 0x5"],
  ["pages of no block", packet({ normal: [0] }), "without a name"],
  ["a payload that is not its pages", be32Patched(data, 20, 4095), "4095 bytes of payload for 1 pages"],
  ["an empty compressed payload", zlib(0), "0 bytes of payload"],
  ["a compressed payload beyond reason", zlib(2 ** 21 + 1), "2097153 bytes of payload"],
])("%s is refused with channel and offset", (_, bad, words) => {
  const error = refusal(syncPacket(), bad);
  expect(error).toMatchObject(protocolFailure(64 + 1344, { channel: 3 }));
  expect((error as Error).message).toContain(words);
});

test("a channel that switches its compression is refused, one with bare SYNCs between is not", () => {
  const packed = packet({ flags: 0x04, block: "mem", normal: [0], payload: Buffer.alloc(9) });
  expect(walk(initPacket(0), packed, syncPacket(), packed).compression).toBe("zstd");
  expect(refusal(packed, data)).toMatchObject({ message: expect.stringContaining("from zstd to none") });
});

test("channel number 255 is refused: QEMU has at most 255 channels", () => {
  expect(() => walk(initPacket(255))).toThrow("number 255");
});

test("a walker that has failed stays failed", () => {
  const walker = new MultifdWalker();
  expect(() => walker.push(be32Patched(initPacket(0), 4, 9))).toThrow("version 9");
  expect(() => walker.push(syncPacket())).toThrow("version 9");
  expect(() => walker.finish()).toThrow("version 9");
});

function be32Patched(bytes: Buffer, at: number, value: number): Buffer {
  return Buffer.concat([bytes.subarray(0, at), be32(value), bytes.subarray(at + 4)]);
}
