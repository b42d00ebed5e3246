import { Buffer } from "node:buffer";
import { writeFile } from "node:fs/promises";
import fc from "fast-check";
import { expect, test } from "vitest";
import { waypoints } from "../../src/control/streams.ts";
import { restore } from "../../src/index.ts";
import { LockstepDestination } from "../support/lockstep-destination.ts";
import { mappedFile } from "../support/mapped-file.ts";
import { applyStreams } from "../support/plain-reader/streams.ts";
import { seededRandom } from "../support/random.ts";
import { useScratch } from "../support/scratch.ts";
import * as wire from "../support/stream-builder.ts";
import { judge, walkStream } from "../support/walk.ts";

const PAGE = wire.PAGE_BYTES;
const RAM_ID = 1;
const NAMES = ["mem", "pc.bios", "x".repeat(255), "/rom@etc/acpi/tables", "vga.vram"];

/** A device whose state must be there before RAM's pages come: virtio-mem's. */
const EARLY = wire.fullSection(40, "virtio-mem-early", Buffer.alloc(70, 0x7e));

/** What a PART section of RAM begins with, and what every section ends with. */
const PART = Buffer.concat([wire.u8(0x02), wire.be32(RAM_ID)]);
const FOOTER = Buffer.concat([wire.u8(0x7e), wire.be32(RAM_ID)]);

/** A guest in a mapped-ram file. Each present page is filled with one byte that is not zero. */
const guests = fc.record({
  blocks: fc.array(
    fc.record({
      pages: fc.integer({ min: 1, max: 1200 }),
      runs: fc.array(fc.tuple(fc.nat(1200), fc.integer({ min: 1, max: 300 })), { maxLength: 8 }),
    }),
    { minLength: 1, maxLength: NAMES.length },
  ),
  machine: fc.constantFrom("pc-q35-10.0", "pc-q35-8.1", "pc-q35-8.0", "pc-i440fx-7.2", "microvm"),
  channels: fc.constantFrom(0, 1, 2, 5, 9),
  base: fc.constantFrom(0, 4096, 92 + 12_345),
  /** As QEMU has been seen to: PARTs, a command, a device that comes before RAM's pages. */
  parts: fc.nat(2),
  command: fc.boolean(),
  early: fc.boolean(),
  fill: fc.integer({ min: 1, max: 255 }),
});
type Guest = typeof guests extends fc.Arbitrary<infer T> ? T : never;

function fileOf({ blocks, machine, base, parts, command, early, fill }: Guest): Buffer {
  const part = Buffer.concat([PART, wire.eosWord, FOOTER]);
  return mappedFile({
    base,
    machine,
    blocks: blocks.map(({ pages, runs }, number) => {
      const present: Record<number, number> = {};
      for (const [first, length] of runs) {
        for (let page = first; page < Math.min(first + length, pages); page++)
          present[page] = 1 + ((fill + page + number) % 255);
      }
      return { name: NAMES[number] as string, bytes: pages * PAGE, pages: present };
    }),
    rest: Buffer.concat([
      ...(early ? [EARLY] : []),
      ...Array.from({ length: parts }, () => part),
      ...(command ? [wire.command(11)] : []),
      wire.endSection(RAM_ID, wire.eosWord),
      ...endOf(),
    ]),
  });
}

/** Devices, EOF byte and vmdescription. */
function endOf(): Buffer[] {
  const devices = ["timer", "cpu"];
  return [
    ...devices.map((name, n) => wire.fullSection(50 + n, name, Buffer.alloc(3000, 0x11))),
    wire.eofByte,
    wire.vmdescription(wire.vmdescriptionJson(devices)),
  ];
}

const scratch = useScratch();
let runs = 0;

test("any guest arrives as it is in the file, whole and in lockstep, by any number of channels", async () => {
  await fc.assert(
    fc.asyncProperty(guests, fc.nat(2 ** 31), async (guest, seed) => {
      const { channels, base, machine } = guest;
      const image = scratch.file(`image-${runs++}`);
      const file = fileOf(guest);
      await writeFile(image, file);
      const address = scratch.file(`socket-${runs}`);
      const destination = await LockstepDestination.listen(address, channels + 1, seededRandom(seed));
      const uuid = "00112233-4455-6677-8899-aabbccddeeff";
      const options = { image, offset: base, channels, uuid, workers: 2 };
      const [completed, streams] = await Promise.all([
        restore({ ...options, connect: destination.address }),
        destination.finished,
      ]).finally(() => destination.close());
      const [main, ...others] = streams as [Buffer, ...Buffer[]];

      expect(judge({ main, channels: others })).toEqual({ verdict: "complete", sealable: true, reasons: [] });
      const truth = streams.map((bytes) => ({ bytes, ...points(bytes) }));
      expect(destination.violations(truth)).toEqual([]);
      expect(completed.bytes).toBe(streams.reduce((sum, { length }) => sum + length, 0));
      expect(others.map((bytes) => bytes.subarray(8, 24).toString("hex"))).toEqual(
        others.map(() => uuid.replaceAll("-", "")),
      );

      const applied = applyStreams(guest.early ? withoutEarly(main) : main, others);
      const legacy = machine === "pc-q35-8.0" || machine === "pc-i440fx-7.2" || channels === 0;
      expect(applied).toMatchObject({ machine, capabilities: [], barrierMode: legacy ? "legacy" : "modern" });
      expect(applied.blocks.map(({ name }) => name)).toEqual(NAMES.slice(0, guest.blocks.length));
      for (const [number, { bytes, came }] of applied.blocks.entries()) {
        expect(bytes.equals(ramOf(file, guest, number))).toBe(true);
        // Whatever the destination's RAM held before.
        expect(came).not.toContain(null);
      }
      const tail = Buffer.concat(endOf());
      expect(main.subarray(-tail.length).equals(tail)).toBe(true);
    }),
    { numRuns: 20 },
  );
}, 120_000);

/** The plain reader knows no such sections. This one must have come before all pages. */
function withoutEarly(main: Buffer): Buffer {
  const at = main.indexOf(EARLY);
  expect(at).toBeGreaterThan(0);
  expect(at).toBeLessThan(main.indexOf(PART));
  return Buffer.concat([main.subarray(0, at), main.subarray(at + EARLY.length)]);
}

function points(bytes: Buffer): { marks: readonly number[]; tail: number | null } {
  const { marks, tail } = waypoints(walkStream(bytes));
  return { marks: [...marks], tail };
}

/** A block's RAM, cut out of the file: what is not present is zero there, too. */
function ramOf(file: Buffer, { blocks, base }: Guest, number: number): Buffer {
  let at = base;
  for (const [n, { pages }] of blocks.entries()) {
    const name = Buffer.concat([Buffer.from([(NAMES[n] as string).length]), Buffer.from(NAMES[n] as string)]);
    const header = file.indexOf(name, at) + name.length + 8;
    at = Number(file.readBigUInt64BE(header + 20));
    if (n === number) return file.subarray(at, at + pages * PAGE);
    at += pages * PAGE;
  }
  throw new Error(`there is no block ${number}`);
}
