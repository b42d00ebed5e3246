import { Buffer } from "node:buffer";
import fc from "fast-check";
import { expect, test } from "vitest";
import { MultifdError } from "../../src/errors.ts";
import { ChannelWalker } from "../../src/formats/migration/channel-walker.ts";
import type { ChannelSummary } from "../../src/formats/migration/summary.ts";
import { buildMigration, type FakeMigration, tail } from "../support/fake-migration.ts";
import * as wire from "../support/stream-builder.ts";
import { judge, walkStream } from "../support/walk.ts";

const SMALL = [{ name: "mem", bytes: 12 * wire.PAGE_BYTES }];
const MIGRATIONS: Readonly<Record<string, FakeMigration>> = {
  old: buildMigration({ style: "7.2", channels: 2, blocks: SMALL }),
  new: buildMigration({ style: "10", channels: 2, blocks: SMALL }),
  single: buildMigration({ style: "7.2", channels: 0, blocks: SMALL }),
  rich: { main: richMain(), channels: [] },
};

/** A main stream with everything that can be followed, early sections and all kinds of records. */
function richMain(): Buffer {
  const noise = Buffer.from("7e000000090402030800067b7e0000000700", "hex");
  const early = wire.fullSection(9, "virtio-mem-device-early", noise);
  const pages = Array.from({ length: 8 }, (_, i) => wire.zeroRecord((4 + i) * wire.PAGE_BYTES, null));
  const records = [
    wire.pageRecord(0, "mem", Buffer.alloc(wire.PAGE_BYTES, noise)),
    wire.compressedRecord(4096, null, noise),
    wire.xbzrleRecord(8192, "mem", noise),
    wire.zeroRecord(12288, "mem"),
    ...pages,
    wire.eosWord,
  ];
  return Buffer.concat([
    wire.configuration({ pageBits: 12, capabilities: [], uuid: wire.ZERO_UUID }),
    early,
    wire.command(2, wire.be32(1)),
    wire.startSection(2, Buffer.concat([wire.blockList(SMALL), wire.eosWord])),
    early,
    wire.command(1),
    wire.partSection(2, Buffer.concat(records)),
    wire.endSection(2, wire.eosWord),
    tail({ timer: noise, cpu: noise }),
  ]);
}

/** A stream of one of the migrations: "main", or a multifd channel by its number. */
interface Place {
  readonly migration: string;
  readonly stream: "main" | number;
}

// Places and offsets rather than streams, so that a counterexample can be read.
const place: fc.Arbitrary<Place> = fc.constantFrom(
  ...Object.entries(MIGRATIONS).flatMap(([migration, { channels }]) =>
    (["main", ...channels.keys()] as const).map((stream) => ({ migration, stream })),
  ),
);

function migrationAt({ migration }: Place): FakeMigration {
  const found = MIGRATIONS[migration];
  if (found === undefined) throw new TypeError(`there is no migration ${migration}`);
  return found;
}

function streamAt(at: Place): Buffer {
  const { main, channels } = migrationAt(at);
  return at.stream === "main" ? main : (channels[at.stream] ?? Buffer.alloc(0));
}

/** A place and an offset within its stream. */
const placeAndOffset = place.chain((at) =>
  fc.record({ at: fc.constant(at), offset: fc.nat(streamAt(at).length - 1) }),
);

/** The verdict on a migration of which one stream was changed, or "refused" for a typed refusal. */
function verdictWith(at: Place, changed: Buffer): string {
  const whole = migrationAt(at);
  const channels = whole.channels.map((stream, id) => (id === at.stream ? changed : stream));
  return verdictOn({ main: at.stream === "main" ? changed : whole.main, channels });
}

function verdictOn(migration: FakeMigration): string {
  try {
    return judge(migration).verdict;
  } catch (error) {
    if (error instanceof MultifdError) return "refused";
    throw error;
  }
}

function walkInPieces(stream: Buffer, lengths: readonly number[]): ChannelSummary {
  const walker = new ChannelWalker();
  for (let at = 0, i = 0; at < stream.length; i++) {
    const length = lengths[i % lengths.length] ?? 1;
    // A private copy that is overwritten at once: a walker that kept the chunk would read nonsense.
    const chunk = Uint8Array.from(stream.subarray(at, at + length));
    walker.push(chunk);
    chunk.fill(0xee);
    at += length;
  }
  return walker.finish();
}

test("the migrations that are changed below are complete", () => {
  for (const migration of Object.values(MIGRATIONS)) expect(verdictOn(migration)).toBe("complete");
});

test("however a stream is cut into chunks, its summary is the same", () => {
  const length = fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 9000 }));
  fc.assert(
    fc.property(place, fc.array(length, { minLength: 1 }), (at, lengths) => {
      expect(walkInPieces(streamAt(at), lengths)).toEqual(walkStream(streamAt(at)));
    }),
    { numRuns: 300 },
  );
});

test("random bytes end in a verdict that is not complete, or in a typed refusal", () => {
  const ramStart = wire.startSection(2, Buffer.concat([wire.blockList(SMALL), wire.eosWord]));
  const heads: Readonly<Record<string, Buffer>> = {
    nothing: Buffer.alloc(0),
    configuration: wire.configuration(),
    ram: Buffer.concat([wire.configuration(), ramStart]),
    records: Buffer.concat([wire.configuration(), ramStart, wire.u8(2), wire.be32(2)]),
    behindRam: Buffer.concat([wire.configuration(), ramStart, wire.endSection(2, wire.eosWord)]),
    undecided: Buffer.concat([wire.configuration(), wire.command(3, Buffer.alloc(16))]),
    channel: wire.initPacket(0),
  };
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 3000 }),
    // Bytes of which streams are made, so that more than the first check is reached.
    fc.array(fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7, 8, 0x10, 0x20, 0x22, 0x7b, 0x7e), { maxLength: 500 }),
  );
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(heads)), bytes, (head, rest) => {
      const main = Buffer.concat([heads[head] ?? Buffer.alloc(0), Uint8Array.from(rest)]);
      expect(["incomplete", "undecided", "refused"]).toContain(verdictOn({ main, channels: [] }));
    }),
    { numRuns: 3000 },
  );
});

test("a stream cut short anywhere is never complete", () => {
  fc.assert(
    fc.property(placeAndOffset, ({ at, offset }) => {
      const verdict = verdictWith(at, streamAt(at).subarray(0, offset));
      expect(["incomplete", "undecided", "refused"]).toContain(verdict);
    }),
    { numRuns: 1500 },
  );
});

test("bytes behind the end are never complete", () => {
  fc.assert(
    fc.property(place, fc.uint8Array({ minLength: 1, maxLength: 40 }), (at, more) => {
      expect(verdictWith(at, Buffer.concat([streamAt(at), more]))).not.toBe("complete");
    }),
  );
});

function range(from: number, length: number): number[] {
  return Array.from({ length }, (_, i) => from + i);
}

function occurrences(stream: Buffer, marker: string): number[] {
  const found: number[] = [];
  for (let at = stream.indexOf(marker, 0, "hex"); at !== -1; at = stream.indexOf(marker, at + 1, "hex")) {
    found.push(at);
  }
  return found;
}

/** Up to the machine's length; RAM's EOS words and footers; the EOF byte and the vmdescription's head. */
function mainStructure(stream: Buffer): number[] {
  const footers = occurrences(stream, "00000000000000107e00000002");
  const eof = stream.lastIndexOf("0006", undefined, "hex");
  return [...range(0, 13), ...footers.flatMap((at) => range(at, 13)), ...range(eof, 7)];
}

/** Magic, version and id of the init packet; magic, version, flags and normal_pages of every packet. */
function channelStructure(stream: Buffer): number[] {
  const packets = occurrences(stream, "1122334400000001").slice(1);
  return [...range(0, 8), 24, ...packets.flatMap((at) => [...range(at, 12), ...range(at + 16, 4)])];
}

function flipped(at: Place, offset: number, bits: number): Buffer {
  const changed = Buffer.from(streamAt(at));
  changed[offset] = (changed[offset] ?? 0) ^ bits;
  return changed;
}

const anyBits = fc.integer({ min: 1, max: 255 });

test("a changed byte of the structure is never complete", () => {
  const structural = place.chain((at) => {
    const offsets = at.stream === "main" ? mainStructure(streamAt(at)) : channelStructure(streamAt(at));
    return fc.record({ at: fc.constant(at), offset: fc.constantFrom(...offsets) });
  });
  fc.assert(
    fc.property(structural, anyBits, ({ at, offset }, bits) => {
      expect(verdictWith(at, flipped(at, offset, bits))).not.toBe("complete");
    }),
    { numRuns: 4000 },
  );
});

test("any changed byte ends in a verdict or a typed refusal", () => {
  fc.assert(
    fc.property(placeAndOffset, anyBits, ({ at, offset }, bits) => {
      const verdict = verdictWith(at, flipped(at, offset, bits));
      expect(["complete", "incomplete", "undecided", "refused"]).toContain(verdict);
    }),
    { numRuns: 1500 },
  );
});
