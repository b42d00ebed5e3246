import { Buffer } from "node:buffer";
import fc from "fast-check";
import { packExtents } from "../../src/formats/image/extents.ts";
import type { ImageMetadata, VmRecord, WrittenChannel, WrittenIndex } from "../../src/formats/image/model.ts";

/** A channel before its extents have a place in the file. */
interface Shape {
  readonly blockBytes: number;
  /** Sizes of the extents in blocks; the last one loses `missing` bytes. */
  readonly blocksPerExtent: readonly number[];
  readonly missing: number;
  readonly hasTail: boolean;
  readonly checksums: readonly number[] | null;
}

type Unplaced = Omit<WrittenChannel, "marks" | "extents"> & {
  marks: readonly number[];
  extents: { offset: number; length: number }[];
};

const MAX_BLOCKS = 24;

const shape: fc.Arbitrary<Shape> = fc.record({
  blockBytes: fc.integer({ min: 1, max: 256 }).map((pages) => pages * 4096),
  blocksPerExtent: fc.array(fc.integer({ min: 1, max: 6 }), { maxLength: 4 }),
  missing: fc.nat(4095),
  hasTail: fc.boolean(),
  checksums: fc.option(
    fc.array(fc.integer({ min: 0, max: 0xffff_ffff }), { minLength: MAX_BLOCKS, maxLength: MAX_BLOCKS }),
  ),
});

/** Any index that keeps every rule, its extents scattered over the file with gaps. */
export function arbitraryIndex(): fc.Arbitrary<WrittenIndex> {
  return fc
    .record({
      shapes: fc.array(shape, { minLength: 1, maxLength: 5 }),
      order: fc.array(fc.nat(), { minLength: 20, maxLength: 20 }),
      gaps: fc.array(fc.nat(3), { minLength: 20, maxLength: 20 }),
      barriers: fc.nat(5),
    })
    .map(({ shapes, order, gaps, barriers }) => {
      const records = shapes.map(unplaced);
      mark(records, barriers);
      place(records, order, gaps);
      const channels = records.map((record) => ({
        ...record,
        extents: packExtents(record.extents),
        marks: Float64Array.from(record.marks),
      }));
      return { channels };
    });
}

/** Gives every channel the same number of marks, as far as the shortest has room for them. */
function mark(records: readonly Unplaced[], barriers: number): void {
  const count = Math.min(barriers, ...records.map((record) => record.length));
  for (const record of records) {
    record.marks = Array.from({ length: count }, (_, n) => Math.floor(((n + 1) * record.length) / count));
  }
}

function place(records: readonly Unplaced[], order: readonly number[], gaps: readonly number[]): void {
  const all = records.flatMap((record) => record.extents);
  const sorted = all.map((extent, n) => ({ extent, key: order[n] ?? 0 })).sort((a, b) => a.key - b.key);
  let end = 4096;
  for (const [n, { extent }] of sorted.entries()) {
    extent.offset = end + (gaps[n] ?? 0) * 4096;
    end = extent.offset + Math.ceil(extent.length / 4096) * 4096;
  }
}

function unplaced(from: Shape, number: number): Unplaced {
  const extents = from.blocksPerExtent.map((blocks) => ({ offset: 0, length: blocks * from.blockBytes }));
  const last = extents.at(-1);
  if (last !== undefined) last.length -= from.missing;
  const length = extents.reduce((sum, extent) => sum + extent.length, 0);
  const blocks = Math.ceil(length / from.blockBytes);
  return {
    kind: number === 0 ? "main" : "multifd",
    id: Math.max(0, number - 1),
    length,
    blockBytes: from.blockBytes,
    extents,
    marks: [],
    tail: number === 0 && from.hasTail ? length : null,
    checksums: from.checksums === null ? null : Uint32Array.from(from.checksums.slice(0, blocks)),
  };
}

const base64 = fc.uint8Array().map((bytes) => Buffer.from(bytes).toString("base64"));
const text = fc.string({ unit: "binary" });

const vmRecord = fc.record<VmRecord>({
  uuid: fc.option(fc.uuid()),
  accelerator: fc.option(text),
  commandLine: fc.option(fc.array(text)),
  cpuModel: fc.option(text),
  cpus: fc.nat(),
  ramBytes: fc.maxSafeNat(),
  running: fc.boolean(),
  ranOn: fc.boolean(),
  disks: fc.array(
    fc.record({
      device: text,
      node: text,
      file: fc.option(text),
      format: text,
      readOnly: fc.boolean(),
      fileBytes: fc.option(fc.maxSafeNat()),
      modifiedNs: fc.option(text),
      snapshotId: fc.option(text),
    }),
  ),
  devices: fc.array(fc.record({ path: text, type: text })),
});

export function arbitraryMetadata(multifdChannels: number): fc.Arbitrary<ImageMetadata> {
  return fc.record<ImageMetadata>({
    writer: text,
    qemuVersion: fc.option(text),
    multifdChannels: fc.constant(multifdChannels),
    compression: fc.constantFrom(null, "none", "zlib", "zstd", "qpl", "uadk", "qatzip"),
    machine: fc.option(text),
    vmUuid: fc.option(fc.uuid()),
    pageSize: fc.constantFrom(4096, 16384, 65536),
    barrierMode: fc.constantFrom(null, "legacy", "modern"),
    capabilities: fc.array(text),
    ramBlocks: fc.array(fc.record({ name: text, usedLength: fc.maxSafeNat() })),
    devices: fc.array(text),
    needsZeroedRam: fc.boolean(),
    evidence: fc.record({
      verdict: fc.constantFrom("complete", "undecided"),
      decidedBy: fc.constantFrom("structure", "commit", "qmp"),
      reasons: fc.array(text),
    }),
    vm: fc.option(vmRecord),
    user: fc.dictionary(text, text),
    userBinary: fc.dictionary(text, base64),
  });
}
