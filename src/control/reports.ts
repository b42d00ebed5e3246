import type { ImageMetadata } from "../formats/image/model.ts";
import type { LibvirtFormat } from "../formats/libvirt/header.ts";
import type { QemuIdentity } from "../formats/mapped-ram/resumed.ts";
import type { RamBlock } from "../formats/migration/summary.ts";
import type { ChannelName, CheckedHow } from "./events.ts";

/** A byte range of the file that restore reads. `offset` counts from the start of the file. */
export interface UsedRange {
  /**
   * Of a stream image "superblock", "metadata", "index", "main" or "channel N"; of a mapped-ram file "stream", "pages of
   * NAME", "map", "metadata", "checksums", "mark" or "footer"; of a stream of QEMU "stream"; of an image of libvirt "libvirt's
   * header and XML" and what is inside.
   */
  readonly what: string;
  readonly offset: number;
  readonly length: number;
}

export interface ChannelReport {
  readonly channel: ChannelName;
  readonly bytes: number;
  readonly extents: number;
  /** Checksummed blocks, and how large they are. */
  readonly blocks: number;
  readonly blockBytes: number;
  /** SYNC packets, or barriers on main. */
  readonly syncs: number;
  readonly checksum: "crc32" | "none";
}

/** What the destination QEMU must be for this image. */
export interface DestinationNeeds {
  readonly machine: string | null;
  readonly multifd: boolean;
  readonly multifdChannels: number;
  readonly multifdCompression: string;
  /** null: none was set at the source, and none may be set at the destination. */
  readonly uuid: string | null;
  /** Validated capabilities that must be on there too, as at the source; x-ignore-shared means that shared RAM is not in the image. */
  readonly capabilities: readonly string[];
  /** True: start the destination with fresh RAM, or truncate its memory file to 0 and back before. */
  readonly zeroedRam: boolean;
}

/** What `inspect` answers; `format` tells which. */
export type ImageReport = RestorableReport | QemuStreamReport | LibvirtReport;

/** Of what a VM can be restored from; what libvirt calls sparse has a MappedRamReport inside. */
export type RestorableReport = StreamImageReport | MappedRamReport;

/** An image of the streams as they came. */
export interface StreamImageReport {
  readonly path: string;
  readonly format: "stream";
  readonly formatVersion: number;
  readonly sealed: boolean;
  readonly imageUuid: string;
  /** ISO time. */
  readonly created: string;
  /** Where the image starts in the file. */
  readonly base: number;
  /** From the base to the image's end; null while unsealed. */
  readonly bytes: number | null;
  /** Bytes of all channels; null while unsealed. */
  readonly dataBytes: number | null;
  /** Null while unsealed. */
  readonly metadata: ImageMetadata | null;
  readonly destination: DestinationNeeds | null;
  readonly channels: readonly ChannelReport[];
  readonly ranges: readonly UsedRange[];
}

/** A RAMBlock of a mapped-ram file. */
export interface MappedBlockReport {
  readonly name: string;
  readonly usedLength: number;
  /** File offset of its first page. */
  readonly pagesOffset: number;
  /** Pages that the file holds; the others are zero. */
  readonly presentPages: number;
}

/** A file in QEMU's mapped-ram format, with a trailer of ours or without. */
export interface MappedRamReport {
  readonly path: string;
  readonly format: "mapped-ram";
  /** Of our trailer. */
  readonly formatVersion: number;
  readonly sealed: boolean;
  readonly seal: "sealed" | "none of multifd-helper" | "never finished";
  /** Null without a footer of ours. */
  readonly imageUuid: string | null;
  /** ISO time; null without a footer of ours. */
  readonly created: string | null;
  /** Where QEMU's stream starts in the file. */
  readonly base: number;
  /** From the base to the image's end; null while unsealed. */
  readonly bytes: number | null;
  /** Bytes of QEMU's stream and of the pages that are present. */
  readonly dataBytes: number;
  readonly machine: string;
  readonly pageSize: number;
  /** Capabilities that must be on at the destination too; mapped-ram is one of them. */
  readonly capabilities: readonly string[];
  readonly blocks: readonly MappedBlockReport[];
  readonly checksum: "crc32" | "none";
  /** Null while unsealed. */
  readonly metadata: ImageMetadata | null;
  /** What an instant restore wrote to it; null: none let the VM run. */
  readonly resumed: ResumedReport | null;
  readonly ranges: readonly UsedRange[];
}

/** An instant restore let the VM run: its disks have moved on since. */
export interface ResumedReport {
  /** ISO time; null: the mark cannot be read, and so the VM counts as resumed. */
  readonly at: string | null;
  /** ISO time at which QEMU had all of the image; null: not yet, or nobody wrote it down. */
  readonly completed: string | null;
  /** UUID of the restore. */
  readonly session: string | null;
  /** Who has the VM; null: nobody could tell. */
  readonly qemu: QemuIdentity | null;
}

/** What others wrote; these fields are here for those who look for a seal of ours. */
interface ForeignReport {
  readonly path: string;
  readonly sealed: false;
  readonly imageUuid: null;
  readonly created: null;
  readonly metadata: null;
  readonly destination: null;
  /** Where it starts in the file. */
  readonly base: number;
  /** From the base to the file's end. */
  readonly bytes: number;
  /** Bytes of QEMU's stream, compressed or not. */
  readonly dataBytes: number;
  readonly ranges: readonly UsedRange[];
}

/** A migration stream as QEMU sent it, without mapped-ram, in a file: of `migrate file:`, `exec:cat >FILE` and the like. */
export interface QemuStreamReport extends ForeignReport {
  readonly format: "qemu-stream";
  /** Whether it is there to its end; "undecided" where it could not be followed. */
  readonly verdict: "complete" | "incomplete" | "undecided";
  /** What is wrong or in doubt, for people; empty when complete. */
  readonly reasons: readonly string[];
  /** Null when it is cut before it says so. */
  readonly machine: string | null;
  readonly pageSize: number;
  /** Capabilities that must be on at the destination too. */
  readonly capabilities: readonly string[];
  /** Only of a VM that was saved with validate-uuid. */
  readonly vmUuid: string | null;
  readonly blocks: readonly RamBlock[];
  /** Pages that came with their bytes, and as zero. Of a VM that ran, a page may count several times. */
  readonly dataPages: number;
  readonly zeroPages: number;
  /** Names of the sections behind RAM; empty when it is not complete. */
  readonly devices: readonly string[];
}

/** An image that libvirt saved a domain to: header, XML, and QEMU's stream behind. */
export interface LibvirtReport extends ForeignReport {
  readonly format: "libvirt";
  /** Of libvirt's header: 1 or 2. */
  readonly version: number;
  readonly byteOrder: "little" | "big";
  /** False: libvirt never finished it, and does not restore it. */
  readonly complete: boolean;
  /** Whether the domain ran when it was saved. */
  readonly running: boolean;
  /** How the stream is stored; `sparse` is mapped-ram, and the others but `raw` are compressed. */
  readonly imageFormat: LibvirtFormat;
  /** File offset of the stream. */
  readonly streamOffset: number;
  readonly vmUuid: string | null;
  /** The domain, with everything that is secret in it. */
  readonly xml: string;
  readonly cookie: string | null;
  /** What is inside; null when it is compressed, or cannot be read. */
  readonly contents: QemuStreamReport | MappedRamReport | null;
  /** Why it cannot be read. */
  readonly problem: string | null;
}

export interface VerifyReport {
  readonly path: string;
  readonly checked: CheckedHow;
  readonly blocks: number;
  readonly bytes: number;
  readonly elapsedMs: number;
  /** Only of an image whose VM an instant restore let run. */
  readonly resumed?: ResumedReport;
}
