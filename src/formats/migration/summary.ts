/**
 * What walking a migration connection tells. Summaries are plain values (they cross thread
 * boundaries by structured clone); all offsets are byte offsets within that connection's stream.
 */

/** multifd-compression, from the flags of packets that carry pages (QEMU migration/multifd.h, 7.2 and 10.0). */
export type Compression = "none" | "zlib" | "zstd" | "qpl" | "uadk" | "qatzip";

/** What one multifd channel carried. */
export interface MultifdSummary {
  readonly kind: "multifd";
  /** Channel number from the init packet, 0..254. */
  readonly id: number;
  /** VM UUID from the init packet, textual form; all zero when QEMU had none. */
  readonly uuid: string;
  readonly bytes: number;
  readonly packets: number;
  /** For each SYNC, the offset just behind its packet (payload included: 7.2 merges SYNC with data). */
  readonly syncEnds: readonly number[];
  readonly normalPages: number;
  readonly zeroPages: number;
  readonly deviceStatePackets: number;
  /** null when no packet carried pages. */
  readonly compression: Compression | null;
  /** True when the stream ended exactly at the end of a packet (or of the init packet). */
  readonly atPacketBoundary: boolean;
}

/** How barriers on main pair with SYNC packets: every RAM EOS (7.2, machine types <= 8.0), or every MULTIFD_FLUSH. */
export type BarrierMode = "legacy" | "modern";

export interface RamBlock {
  readonly name: string;
  readonly usedLength: number;
}

/** What the main channel carried. */
export interface MainSummary {
  readonly kind: "main";
  readonly bytes: number;
  /** Machine type of the CONFIGURATION section, e.g. pc-q35-7.2; null when the stream ended before it. */
  readonly machine: string | null;
  /** Target page size in bytes. */
  readonly pageSize: number;
  /** Validated capabilities that the stream names (x-ignore-shared, mapped-ram). */
  readonly capabilities: readonly string[];
  /** VM UUID of configuration/uuid (only with validate-uuid), textual form. */
  readonly uuid: string | null;
  readonly barrierMode: BarrierMode | null;
  readonly ramBlocks: readonly RamBlock[];
  /** For each barrier, the offset of its first byte (the FLUSH word, or the EOS word in legacy mode). */
  readonly barriers: readonly number[];
  /** Offset just behind the footer of the RAM END section; null when none was seen. */
  readonly ramEnd: number | null;
  /** Page records met on main: data in single-channel streams, zero records in 7.2's multifd streams. */
  readonly pageRecords: number;
  readonly zeroRecords: number;
  /** Offset of the EOF byte (0x00) that stands before a vmdescription ending exactly at the stream's end. */
  readonly eofByte: number | null;
  /** Names of the sections met behind RAM, from the vmdescription; empty when there is none. */
  readonly devices: readonly string[];
  /** Why the walk could not follow the stream to its end (other iterable devices, postcopy …); empty when it could. */
  readonly undecided: readonly string[];
}

export type ChannelSummary = MainSummary | MultifdSummary;

/**
 * A resumable reader of one connection. Chunks may be cut anywhere; a chunk is only looked at during the
 * call and never kept. Throws MultifdError PROTOCOL (or TLS_PEER) with `details.offset` when the bytes
 * cannot be a migration stream.
 */
export interface Walker<S> {
  push(chunk: Uint8Array): void;
  /** To be called once, at the stream's end. A stream cut short is described, not thrown. */
  finish(): S;
}
