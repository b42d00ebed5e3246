import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import * as commands from "../../../src/formats/postcopy/commands.ts";

/*
 * Expected bytes are written by hand after migration/savevm.c of QEMU 7.2.22 and 10.0.2 (enum qemu_vm_cmd and the
 * qemu_savevm_send_* functions): u8 08 (QEMU_VM_COMMAND), be16 command, be16 length, data.
 */

function hex(...parts: string[]): string {
  return parts.join("").replaceAll(" ", "");
}

test.each([
  ["OPEN_RETURN_PATH has no data", commands.OPEN_RETURN_PATH, hex("08 0001 0000")],
  ["PING carries its number", commands.ping(0x01020304), hex("08 0002 0004 01020304")],
  ["LISTEN has no data", commands.LISTEN, hex("08 0004 0000")],
  ["RUN has no data", commands.RUN, hex("08 0005 0000")],
  [
    "PACKAGED carries the length of what follows",
    commands.packaged(2 ** 32 - 1),
    hex("08 0007 0004 ffffffff"),
  ],
  ["RESUME has no data", commands.RESUME, hex("08 0009 0000")],
  // qemu_savevm_send_recv_bitmap: length of the name, name.
  ["RECV_BITMAP names its block", commands.askReceived("pc.ram"), hex("08 000a 0007 06 70632e72616d")],
  [
    // qemu_savevm_send_postcopy_advise: be64 page size summary, be64 target page.
    "POSTCOPY_ADVISE has the page sizes of both sides",
    commands.advise([4096], 4096),
    hex("08 0003 0010 0000000000001000 0000000000001000"),
  ],
  [
    "POSTCOPY_ADVISE sums the sizes of the destination's pages up",
    commands.advise([4096, 2 ** 21, 2 ** 30], 4096),
    hex("08 0003 0010 0000000040201000 0000000000001000"),
  ],
  [
    // qemu_savevm_send_postcopy_ram_discard: u8 version 0, counted name, u8 0, then be64 start and length of each stretch.
    "POSTCOPY_RAM_DISCARD names a stretch of a block",
    commands.discard("mem", 2 ** 33, 4096),
    hex("08 0006 0016 00 03 6d656d 00 0000000200000000 0000000000001000"),
  ],
])("%s", (_title, found, expected) => {
  expect(Buffer.from(found).toString("hex")).toBe(expected);
});

test("a name of 255 bytes fits", () => {
  expect(commands.askReceived("n".repeat(255)).subarray(0, 6).toString("hex")).toBe("08000a0100ff");
});
