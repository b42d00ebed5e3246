import type { Failure } from "../errors.ts";
import type { ChannelRecord, Extent } from "../formats/image/model.ts";
import type { MappedLayout } from "../formats/mapped-ram/layout.ts";
import type { MappedBlock } from "../formats/mapped-ram/model.ts";
import type { MainStep } from "../formats/mapped-ram/synthesis.ts";
import type { ChannelSummary, MainSummary } from "../formats/migration/summary.ts";
import type { RamMemory } from "./placing/ram-tables.ts";
import type { RingPlan } from "./ring-plan.ts";

/** What goes to a worker and comes back: plain data only. */

/** The image as a worker sees it. The descriptor is borrowed: main owns and closes it. */
export interface BorrowedImage {
  readonly fd: number;
  /** File offset of the superblock. */
  readonly base: number;
  readonly directIo: boolean;
}

/** Take one of QEMU's connections in. */
export interface IntakeTask {
  /** Which connection of this run, in the order of accepting. */
  readonly connection: number;
  /** The worker's own descriptor of the connection, from the moment it says "taken". */
  readonly socketFd: number;
  readonly image: BorrowedImage;
  readonly control: SharedArrayBuffer;
  readonly blockBytes: number;
  readonly slots: number;
  /** The image is a regular file: space can be reserved. */
  readonly sparse: boolean;
  /** The file ends where the image will: what is reserved behind it can be cut off. */
  readonly ownsFile: boolean;
  /** Bytes that the image's device can hold, from the base; null where only the file system knows. */
  readonly capacity: number | null;
  readonly maxBytes: number | null;
  readonly rate: number | null;
}

/** Drain a connection into extents of the image, as it comes. */
export interface DrainTask extends IntakeTask {
  readonly checksum: boolean;
}

/** Put the pages of a connection to their places in the image. */
export interface PlaceTask extends IntakeTask {
  readonly ram: RamMemory;
  /** Which regions of the file are reserved (see Regions). */
  readonly regions: SharedArrayBuffer;
  readonly work: PlaceWork;
}

/** What becomes of the pages. */
export type PlaceWork =
  /** A mapped-ram file. */
  | { readonly kind: "image" }
  /** A file with the memory of one RAMBlock. */
  | { readonly kind: "block"; readonly name: string }
  /** Nothing but a digest of each. */
  | { readonly kind: "digest" };

/** What is known of a connection that was taken in. */
export interface TakenIn {
  readonly summary: ChannelSummary;
  /** Between the first and the last byte. */
  readonly activeMs: number;
}

/** What a placed connection left beside its pages. */
export interface Placed extends TakenIn {
  /** Of main alone. */
  readonly main: PlacedMain | null;
}

/** How the stream around the pages goes to the file. */
export interface PlacedMain {
  readonly layout: MappedLayout;
  /** What stands behind the pages, on disk already. */
  readonly tail: { readonly length: number; readonly crc32: number };
}

/** What a drained connection left in the image. */
export interface Drained extends TakenIn {
  readonly blockBytes: number;
  readonly extents: readonly Extent[];
  /** End of the space claimed for the last extent; what lies behind its data is unused. */
  readonly claimedEnd: number;
  readonly checksums: Uint32Array | null;
}

/** A connection to the destination, and how it is used. Main is connection 0 and channel i is connection i + 1. */
export interface OutgoingTask {
  readonly connection: number;
  /** The worker's own descriptor of it. */
  readonly socketFd: number;
  readonly control: SharedArrayBuffer;
  /** Bytes at the start of the channel that went out (checked) when it was connected. */
  readonly alreadySent: number;
  readonly rate: number | null;
}

/** Feed one channel of the image to the destination's connection. */
export interface FeedTask extends OutgoingTask {
  readonly image: BorrowedImage;
  readonly record: ChannelRecord;
  readonly slots: number;
  readonly multifdChannels: number;
}

/** Feed a migration stream that lies in a file as it came. */
export interface PourTask extends OutgoingTask {
  readonly fd: number;
  readonly offset: number;
  readonly length: number;
}

/** Make up a channel out of a mapped-ram file and feed it to the destination's connection. */
export interface SynthesisTask extends OutgoingTask {
  /** Borrowed: main owns and closes it. */
  readonly fd: number;
  readonly blocks: readonly MappedBlock[];
  /** File offset of the checksums of the pages' ranges; null: there are none. */
  readonly sumsOffset: number | null;
  readonly multifdChannels: number;
  /** How pages are read, where this channel sends any. */
  readonly ring: RingPlan;
  readonly part: MainPart | ChannelPart;
}

export interface MainPart {
  readonly kind: "main";
  /** Of all bytes of main, those that were already sent included. */
  readonly length: number;
  readonly steps: readonly CheckedStep[];
  /** Of the step "pages", by the bitmaps as they were checked. */
  readonly recordBytes: number;
  /** The destination's RAM is known to be zero. */
  readonly zeroedRam: boolean;
}

export interface ChannelPart {
  readonly kind: "multifd";
  readonly id: number;
  /** SYNC packets that it sends: the first one before all pages, the others behind them. */
  readonly syncs: number;
}

/** A step of main; what is copied has the CRC-32 that it had when the file was checked. */
export type CheckedStep =
  | Exclude<MainStep, { kind: "copied" }>
  | (Extract<MainStep, { kind: "copied" }> & { readonly crc32: number });

export interface Fed {
  readonly bytes: number;
  readonly activeMs: number;
}

/** Read one channel of the image and check it. */
export interface CheckTask {
  /** Where its progress is counted. */
  readonly connection: number;
  readonly image: BorrowedImage;
  readonly control: SharedArrayBuffer;
  readonly record: ChannelRecord;
  readonly slots: number;
}

export interface Checked {
  readonly summary: ChannelSummary;
  readonly blocks: number;
}

/** Read the pages of a mapped-ram file, together with other tasks: each takes the next stretch that nobody has. */
export interface PagesTask {
  /** Where its progress is counted. */
  readonly connection: number;
  readonly fd: number;
  readonly control: SharedArrayBuffer;
  readonly blocks: readonly MappedBlock[];
  readonly work: PagesWork;
}

export type PagesWork =
  /** Only see that no page lies in a hole. */
  | { readonly kind: "holes"; readonly saving: boolean }
  /** That, and put the CRC-32 of each range, big-endian, into `sums`. */
  | { readonly kind: "sum"; readonly sums: SharedArrayBuffer }
  /** Compare the ranges with the checksums that lie at this file offset. */
  | { readonly kind: "compare"; readonly sumsOffset: number };

export interface PagesRead {
  /** Ranges that have pages. */
  readonly ranges: number;
}

/** Walk a migration stream of QEMU that lies in a file as it came. */
export interface WalkTask {
  /** Where its progress is counted. */
  readonly connection: number;
  readonly fd: number;
  readonly control: SharedArrayBuffer;
  /** Where it begins in the file, and its bytes. */
  readonly offset: number;
  readonly length: number;
}

export interface Walked {
  readonly summary: MainSummary;
  /** Pieces of 1 MiB that were read. */
  readonly pieces: number;
}

/** Error classes do not survive between threads, so that a worker answers with data either way. */
export type Answer<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly failure: Failure };
