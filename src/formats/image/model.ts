import type { BarrierMode, Compression, RamBlock } from "../migration/summary.ts";

/**
 * The values inside a parallel save image (docs/formats/image.md). All offsets are relative to the
 * image's base (`--offset` rounded up to 4096), so that an image can be moved with its manager's header.
 */

export const ALIGNMENT = 4096;
export const SUPERBLOCK_BYTES = 4096;
/** Checksummed blocks are never larger than this, so that a reader can check before it sends with little memory. */
export const MAX_BLOCK_BYTES: number = 1024 * 1024;

export const MAX_MULTIFD_CHANNELS = 255;
// Bounds a reader may rely on, whatever a forged image says. What a reader holds at once (metadata, extents, marks, one
// block of each channel) stays below 64 MiB; checksums, the bulk of an index, are read as they are needed.
export const MAX_METADATA_BYTES: number = 4 * 1024 * 1024;
/** 16 TiB in blocks of 128 KiB make half of this. */
export const MAX_INDEX_BYTES: number = 1024 * 1024 * 1024;
/** Extents of all channels together. */
export const MAX_EXTENTS: number = 256 * 1024;
/** Marks of all channels together. */
export const MAX_MARKS: number = 4 * 1024 * 1024;
/** The block sizes of all channels added up: a reader holds a block of every channel at once. */
export const MAX_BLOCK_SUM: number = 64 * 1024 * 1024;

/** A piece of the file that holds consecutive bytes of one channel. */
export interface Extent {
  /** Start, a multiple of 4096. */
  readonly offset: number;
  /** Bytes of the channel in it. Every extent but a channel's last is a multiple of the block size. */
  readonly length: number;
}

/** How the bytes of one connection lie in the image. */
export interface Channel {
  readonly kind: "main" | "multifd";
  /** multifd id 0..254; 0 for main. */
  readonly id: number;
  /** Bytes of the connection. */
  readonly length: number;
  /** Checksum granularity in bytes: a multiple of 4096, at most MAX_BLOCK_BYTES. Blocks never straddle extents. */
  readonly blockBytes: number;
  /** Offset and length of each extent in turn (extents.ts): objects would take five times the memory. */
  readonly extents: Float64Array;
  /** multifd: ends of the SYNC packets; main: starts of the barriers. Ascending. Empty if main could not be walked. */
  readonly marks: Float64Array;
  /** main: what lies from here on is sent last, when every channel was delivered (RAM END, or the EOF byte). null: no such point. */
  readonly tail: number | null;
}

/** A channel as it is read from an index. */
export interface ChannelRecord extends Channel {
  /** Where the first of its checksums lies, from the base of the image; null with --checksum none. */
  readonly checksumsAt: number | null;
}

/** A channel as it goes into an index. */
export interface WrittenChannel extends Channel {
  /** CRC-32 (zlib) of each block of the channel's bytes, padding left out; null with --checksum none. */
  readonly checksums: Uint32Array | null;
}

export interface ImageIndex {
  /** Main first, then multifd 0..N-1. */
  readonly channels: readonly ChannelRecord[];
}

export interface WrittenIndex {
  /** Main first, then multifd 0..N-1. */
  readonly channels: readonly WrittenChannel[];
}

/** A checked piece of the file: metadata or index. */
export interface Region {
  readonly offset: number;
  readonly length: number;
  readonly crc32: number;
}

export interface Superblock {
  readonly state: "writing" | "sealed";
  readonly uuid: string;
  /** Milliseconds since the epoch. */
  readonly createdMs: number;
  /** Bytes from the base to the end of the image; 0 while writing. */
  readonly imageBytes: number;
  /** null while writing. */
  readonly metadata: Region | null;
  readonly index: Region | null;
}

/** Why the image was taken for complete: the answer of the completeness judge and who decided. */
export interface SealEvidence {
  readonly verdict: "complete" | "undecided";
  /** Who decided: the structure of the streams alone, the manager's `commit`, or QEMU's `completed` seen over QMP. */
  readonly decidedBy: "structure" | "commit" | "qmp";
  readonly reasons: readonly string[];
}

/** A block device of the VM, as it was when the VM had stopped and QEMU had let go of its disks. */
export interface DiskRecord {
  /** qdev id or QOM path of the device, or its old-style name. */
  readonly device: string;
  /** Node name of its topmost block node. */
  readonly node: string;
  /** Path of the file or device behind it on the host; null where it is none (nbd, rbd …). */
  readonly file: string | null;
  /** QEMU's block driver: "raw", "qcow2" … */
  readonly format: string;
  readonly readOnly: boolean;
  /** Size of the file in bytes and its time of modification in nanoseconds since 1970, as text; null where it could not be looked at. */
  readonly fileBytes: number | null;
  readonly modifiedNs: string | null;
  /** Id of the newest internal snapshot; null: none. */
  readonly snapshotId: string | null;
}

/** A device of the VM: its QOM path and its type. */
export interface DeviceRecord {
  readonly path: string;
  readonly type: string;
}

/** The VM as QMP described it: what the destination is compared with, and what the streams do not say. */
export interface VmRecord {
  /** null: QEMU was started without -uuid. */
  readonly uuid: string | null;
  /** "kvm" or "tcg"; null where it could not be asked. */
  readonly accelerator: string | null;
  /** QEMU's arguments, the program first; null where its process could not be looked at. */
  readonly commandLine: readonly string[] | null;
  /** QOM type of the first CPU, e.g. "qemu64-x86_64-cpu". */
  readonly cpuModel: string | null;
  readonly cpus: number;
  /** Bytes of RAM it was started with. */
  readonly ramBytes: number;
  /** The VM ran before the save stopped it, so that a restore lets it run. */
  readonly running: boolean;
  /** The VM ran on after the moment of this image: its disks no longer agree with it. */
  readonly ranOn: boolean;
  readonly disks: readonly DiskRecord[];
  readonly devices: readonly DeviceRecord[];
}

/** What the image says of the VM: JSON, open to new fields. */
export interface ImageMetadata {
  /** Name and version of the writer. */
  readonly writer: string;
  /** Version of the QEMU that sent the streams, as query-version names it; null when nobody asked it. */
  readonly qemuVersion: string | null;
  readonly multifdChannels: number;
  readonly compression: Compression | null;
  readonly machine: string | null;
  /** UUID the destination must have: it is compared on every multifd channel. null without multifd channels and validate-uuid. */
  readonly vmUuid: string | null;
  readonly pageSize: number;
  readonly barrierMode: BarrierMode | null;
  readonly capabilities: readonly string[];
  readonly ramBlocks: readonly RamBlock[];
  readonly devices: readonly string[];
  /** True when zero pages are not written by the stream, so that the destination's RAM must be zero beforehand. */
  readonly needsZeroedRam: boolean;
  readonly evidence: SealEvidence;
  /** What QMP told of the VM; null when nobody asked it. */
  readonly vm: VmRecord | null;
  /** --meta and --meta-file values that are text. */
  readonly user: Readonly<Record<string, string>>;
  /** --meta-file values that are not UTF-8 text, as base64. */
  readonly userBinary: Readonly<Record<string, string>>;
}
