import { Buffer } from "node:buffer";
import { MultifdError } from "../../errors.ts";
import type { RamBlock } from "../migration/summary.ts";
import { damaged } from "./damage.ts";
import {
  base64,
  dictionary,
  flag,
  integer,
  list,
  nullable,
  optional,
  record,
  text,
  uuid,
  word,
} from "./fields.ts";
import { measureJson } from "./json-shape.ts";
import {
  type DeviceRecord,
  type DiskRecord,
  type ImageMetadata,
  MAX_METADATA_BYTES,
  MAX_MULTIFD_CHANNELS,
  type SealEvidence,
  type VmRecord,
} from "./model.ts";

const readMetadata = record<ImageMetadata>({
  writer: text,
  qemuVersion: nullable(text),
  multifdChannels: integer(0, MAX_MULTIFD_CHANNELS),
  compression: nullable(word(["none", "zlib", "zstd", "qpl", "uadk", "qatzip"])),
  machine: nullable(text),
  vmUuid: nullable(uuid),
  pageSize: integer(1, 2 ** 31),
  barrierMode: nullable(word(["legacy", "modern"])),
  capabilities: list(text),
  ramBlocks: list(record<RamBlock>({ name: text, usedLength: integer(0, Number.MAX_SAFE_INTEGER) })),
  devices: list(text),
  needsZeroedRam: flag,
  evidence: record<SealEvidence>({
    verdict: word(["complete", "undecided"]),
    decidedBy: word(["structure", "commit", "qmp"]),
    reasons: list(text),
  }),
  vm: optional(
    record<VmRecord>({
      uuid: nullable(uuid),
      accelerator: nullable(text),
      commandLine: nullable(list(text)),
      cpuModel: nullable(text),
      cpus: integer(0, 2 ** 31),
      ramBytes: integer(0, Number.MAX_SAFE_INTEGER),
      running: flag,
      ranOn: flag,
      disks: list(
        record<DiskRecord>({
          device: text,
          node: text,
          file: nullable(text),
          format: text,
          readOnly: flag,
          fileBytes: nullable(integer(0, Number.MAX_SAFE_INTEGER)),
          modifiedNs: nullable(text),
          snapshotId: nullable(text),
        }),
      ),
      devices: list(record<DeviceRecord>({ path: text, type: text })),
    }),
  ),
  user: dictionary(text),
  userBinary: dictionary(base64),
});

/** Far above what a VM with thousands of RAMBlocks and devices needs, and far below what would fill memory. */
const MAX_DEPTH = 16;
const MAX_MARKS = 256 * 1024;

/**
 * @returns one JSON object in UTF-8
 * @throws MultifdError USAGE when it is larger than 4 MiB or has too many values: only --meta and --meta-file can
 *   make it so
 */
export function encodeMetadata(metadata: ImageMetadata): Buffer {
  const { vm, ...others } = metadata;
  // Absent rather than null: an image of which QMP told nothing is what it was before there was this field.
  const bytes = Buffer.from(JSON.stringify(vm === null ? others : metadata));
  const { marks } = measureJson(bytes);
  if (bytes.length > MAX_METADATA_BYTES || marks > MAX_MARKS) {
    throw new MultifdError(
      "USAGE",
      `the image's metadata would have ${bytes.length} bytes with ${marks} values and may have ${MAX_METADATA_BYTES} with ${MAX_MARKS}; store less with --meta and --meta-file`,
      { bytes: bytes.length, limit: MAX_METADATA_BYTES },
    );
  }
  return bytes;
}

/**
 * Reads the metadata and checks every field. Fields of later writers are left out.
 *
 * @throws MultifdError IMAGE_DAMAGED, UNSUPPORTED_VERSION (a word of a later writer, e.g. its compression method)
 */
export function decodeMetadata(bytes: Uint8Array): ImageMetadata {
  return readMetadata(parse(bytes), "");
}

function parse(bytes: Uint8Array): unknown {
  const { depth, marks } = measureJson(bytes);
  if (depth > MAX_DEPTH || marks > MAX_MARKS) {
    const found = `it nests ${depth} deep and has ${marks} values`;
    throw damaged("metadata", `${found}; ${MAX_DEPTH} and ${MAX_MARKS} are allowed`, { what: "metadata" });
  }
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch (cause) {
    throw damaged("metadata byte 0", "it is not JSON in UTF-8", { what: "metadata", offset: 0 }, cause);
  }
}
