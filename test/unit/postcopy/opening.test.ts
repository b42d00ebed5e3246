import { Buffer } from "node:buffer";
import { expect, test } from "vitest";
import type { FileStep } from "../../../src/formats/mapped-ram/main-steps.ts";
import type { MappedStream } from "../../../src/formats/mapped-ram/model.ts";
import { MappedStreamWalker } from "../../../src/formats/mapped-ram/stream.ts";
import { type HostPages, postcopyOpening } from "../../../src/formats/postcopy/opening.ts";
import { type MappedFileOptions, mappedFile, restOf } from "../../support/mapped-file.ts";

/*
 * What a source sends until the guest runs, written by hand after migration/savevm.c, migration/ram.c and
 * migration/migration.c (postcopy_start) of QEMU 7.2.22 and 10.0.2. Machine and devices are those of mappedFile().
 */

const PAGE = 4096;
const HUGE = 2 ** 21;
const BLOCKS = [
  { name: "mem", bytes: 2 * HUGE, pages: { 0: 1, 300: 2 } },
  { name: "rom", bytes: 2 * PAGE, pages: { 1: 3 } },
];

function walk(file: Buffer): MappedStream {
  const walker = new MappedStreamWalker(0);
  while (walker.wanted < file.length) walker.push(file.subarray(walker.wanted, walker.wanted + 2 ** 20));
  return walker.finish();
}

/** What stands before pages, from the first byte on, and what is sent when the guest may run. */
function sent(
  options: Partial<MappedFileOptions> = {},
  hostPages: HostPages = {},
): { opening: string; launch: string } {
  const file = mappedFile({ blocks: BLOCKS, ...options });
  const { opening, launch } = postcopyOpening(walk(file), hostPages);
  const text = (steps: readonly FileStep[]): string =>
    Buffer.concat(
      steps.map((step) =>
        step.kind === "bytes" ? step.bytes : file.subarray(step.offset, step.offset + step.length),
      ),
    ).toString("hex");
  return { opening: file.subarray(0, 8).toString("hex") + text(opening), launch: text(launch) };
}

function hex(...parts: string[]): string {
  return parts.join("").replaceAll(" ", "");
}

function ascii(text: string): string {
  return Buffer.from(text).toString("hex");
}

const MAGIC = "5145564d 00000003";
/** QEMU_VM_CONFIGURATION, be32 length of the name, name. */
const MACHINE = `07 0000000b ${ascii("pc-q35-10.0")}`;
const RETURN_PATH = "08 0001 0000";
const ADVISE = "08 0003 0010 0000000000001000 0000000000001000";
/** Section 1 of type START, "ram", instance 0, version 4; be64 size of all RAM with the flag MEM_SIZE. */
const START = `01 00000001 03 ${ascii("ram")} 00000000 00000004 0000000000402004`;
const MEM = `03 ${ascii("mem")} 0000000000400000`;
const ROM = `03 ${ascii("rom")} 0000000000002000`;
const END_OF_START = "0000000000000010 7e 00000001";
const DISCARD = `08 0006 0016 00 03 ${ascii("mem")} 00 0000000000000000 0000000000001000`;
const PING = (number: string): string => `08 0002 0004 ${number}`;

test("before the devices: return path, advise, the list of blocks, a discard, a ping", () => {
  expect(sent().opening).toBe(
    hex(MAGIC, MACHINE, RETURN_PATH, ADVISE, START, MEM, ROM, END_OF_START, DISCARD, PING("00000001")),
  );
});

/** Section 2 of type FULL, "timer", instance 0, version 1, its 24 bytes, footer. */
function device(): string {
  const rest = restOf(["timer"]).toString("hex");
  const afterEnd = hex("03 00000001", END_OF_START).length;
  return rest.slice(afterEnd, rest.indexOf(hex("7e 00000002")) + 10);
}

test("the devices go in a package: listen, they, a ping, run, and neither the byte that ends a stream nor a description", () => {
  const load = hex("08 0004 0000", device(), PING("00000002"), "08 0005 0000");
  const length = (load.length / 2).toString(16).padStart(8, "0");
  expect(sent().launch).toBe(hex("08 0007 0004", length, load));
});

test("a block in huge pages says so in the list, and its first huge page is the one that is discarded", () => {
  expect(sent({}, { mem: HUGE }).opening).toBe(
    hex(
      ...[MAGIC, MACHINE, RETURN_PATH, "08 0003 0010 0000000000201000 0000000000001000"],
      ...[START, MEM, "0000000000200000", ROM, END_OF_START],
      ...[`08 0006 0016 00 03 ${ascii("mem")} 00 0000000000000000 0000000000200000`, PING("00000001")],
    ),
  );
});

test("capabilities that the source had stay, without mapped-ram", () => {
  const { opening } = sent({ capabilities: ["mapped-ram", "late-one"] });
  const left = `05 1a ${ascii("configuration/capabilities")} 00000001 00000001 08 ${ascii("late-one")}`;
  expect(opening.startsWith(hex(MAGIC, MACHINE, left, RETURN_PATH))).toBe(true);
});

test("what QEMU 10 says to VFIO alone before the end of RAM is left out", () => {
  const rest = Buffer.concat([Buffer.from("08000b0000", "hex"), restOf(["timer"])]);
  expect(sent({ rest })).toEqual(sent());
});

test("devices that come before the pages stay where they were", () => {
  const early = hex(`04 00000009 05 ${ascii("early")} 00000000 00000001`, "22".repeat(24), "7e 00000009");
  const rest = Buffer.concat([Buffer.from(early, "hex"), restOf(["timer"])]);
  const { opening, launch } = sent({ rest });
  expect(opening).toContain(END_OF_START.replaceAll(" ", "") + early + hex(DISCARD));
  expect(launch).toBe(sent().launch);
});

test("shared RAM that was never saved is refused", () => {
  expect(() => sent({ capabilities: ["x-ignore-shared", "mapped-ram"] })).toThrow(
    expect.objectContaining({
      code: "QEMU_UNSUPPORTED",
      message: expect.stringContaining("x-ignore-shared"),
    }),
  );
});

test("devices that do not fit into a package are refused before anything is sent", () => {
  const stream = walk(mappedFile({ blocks: BLOCKS }));
  const huge = { ...stream, eofByte: stream.eofByte + 2 ** 32 };
  expect(() => postcopyOpening(huge, {})).toThrow(expect.objectContaining({ code: "QEMU_UNSUPPORTED" }));
});
