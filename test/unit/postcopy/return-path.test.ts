import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import { ReturnPath } from "../../../src/formats/postcopy/return-path.ts";

/*
 * Messages are written by hand after migration/migration.c of QEMU 7.2.22 and 10.0.2 (enum mig_rp_message_type and the
 * migrate_send_rp_* functions), the bitmap after ramblock_recv_bitmap_send, migration/ram.c: all big-endian.
 */

function bytes(...parts: string[]): Buffer {
  return Buffer.from(parts.join("").replaceAll(" ", ""), "hex");
}

const PONG = "0002 0004 00000007";
const SHUT = "0001 0004 00000000";
/** mem, at 1 GiB + 4096, 4096 bytes. */
const REQUEST_OF_MEM = "0003 0010 0000000040001000 00001000 03 6d656d";
const REQUEST_OF_ROM = "0003 0010 0000000000000000 00200000 03 726f6d";
/** Of the block of the latest request, at 2^40. */
const REQUEST = "0004 000c 0000010000000000 00001000";
const BITMAP_HEAD = "0005 0004 03 6d656d";
const BITMAP_END = "0123456789abcdef";
const BITMAP = `${BITMAP_HEAD} 0000000000000008 ff00000000000001 ${BITMAP_END}`;
const RESUMED = "0006 0004 00000001";

/** What a path that is fed with these pieces tells; mem has a bitmap of 8 bytes, and nothing else has one. */
function told(pieces: Iterable<Uint8Array>): unknown[] {
  const heard: unknown[] = [];
  const path = new ReturnPath(
    {
      request: (...request) => heard.push(request),
      pong: (number) => heard.push({ pong: number }),
      received: (block, bitmap) => heard.push({ block, bitmap: Buffer.from(bitmap).toString("hex") }),
      resumed: () => heard.push("resumed"),
      shut: (status) => heard.push({ shut: status }),
    },
    (block) => (block === "mem" ? 8 : null),
  );
  for (const piece of pieces) path.push(piece);
  return heard;
}

const ALL = bytes(PONG, REQUEST_OF_MEM, REQUEST, BITMAP, RESUMED, REQUEST_OF_ROM, REQUEST, SHUT);
const TOLD = [
  { pong: 7 },
  ["mem", 2 ** 30 + 4096, 4096],
  ["mem", 2 ** 40, 4096],
  { block: "mem", bitmap: "ff00000000000001" },
  "resumed",
  ["rom", 0, 2 ** 21],
  ["rom", 2 ** 40, 4096],
  { shut: 0 },
];

test("every kind of message is told, in order", () => {
  expect(told([ALL])).toEqual(TOLD);
});

test("wherever it is cut, a path tells the same", () => {
  for (let cut = 0; cut <= ALL.length; cut++) {
    expect(told([ALL.subarray(0, cut), ALL.subarray(cut)]), `cut at ${cut}`).toEqual(TOLD);
  }
});

test("byte by byte a path tells the same, from memory that its owner uses again", () => {
  const memory = Buffer.alloc(1);
  const pieces = function* (): Generator<Buffer> {
    for (const byte of ALL) {
      memory[0] = byte;
      yield memory;
    }
  };
  expect(told(pieces())).toEqual(TOLD);
});

test("nothing is told of a message that has not come to its end", () => {
  for (const message of [PONG, REQUEST_OF_MEM, BITMAP, SHUT]) {
    expect(told([bytes(message).subarray(0, -1)])).toEqual([]);
  }
});

test("a load that failed is no damage to the path", () => {
  expect(told([bytes("0001 0004 00000001")])).toEqual([{ shut: 1 }]);
});

test.each([
  ["a message of type 0", "0000 0000"],
  ["a message of a type that no QEMU has", "0007 0000"],
  ["such a message before its data has come", "0007 0100"],
  ["a message that is longer than any of QEMU's", "0003 010d"],
  ["a PONG without its number", "0002 0000"],
  ["a PONG with more than its number", "0002 0005 0000000000"],
  ["a SHUT of two bytes", "0001 0002 0000"],
  ["a request of the latest block where there is none", REQUEST],
  ["a request that is too short", `${REQUEST_OF_MEM} 0004 000b 0000000000000000 000010`],
  ["a request that is too long", `${REQUEST_OF_MEM} 0004 000d 0000000000000000 00001000 00`],
  ["a request whose name is longer than its message", "0003 000f 0000000000000000 00001000 03 6d65"],
  ["a request whose name is shorter than its message", "0003 0011 0000000000000000 00001000 03 6d656d00"],
  ["a request without a name", "0003 000c 0000000000000000 00001000"],
  ["a bitmap of no block", "0005 0000"],
  ["a bitmap whose block's name is cut", "0005 0003 03 6d65"],
  ["a bitmap of a block that is not there", "0005 0004 03 726f6d 0000000000000008"],
  ["a bitmap that is too small", `${BITMAP_HEAD} 0000000000000007`],
  ["a bitmap that is too large", `${BITMAP_HEAD} 0000000000000010`],
  ["a bitmap larger than any memory", `${BITMAP_HEAD} ffffffffffffffff`],
  ["a bitmap without its end", `${BITMAP_HEAD} 0000000000000008 ff00000000000001 0123456789abcdee`],
  ["a destination that does not resume", "0006 0004 00000000"],
])("refused as PROTOCOL, with its place: %s", (_what, hostile) => {
  const start = bytes(PONG).length;
  const refusal = expect.objectContaining({
    code: "PROTOCOL",
    details: { offset: expect.toSatisfy((offset: number) => offset >= start) },
  });
  expect(() => told([bytes(PONG, hostile)])).toThrow(refusal);
});
