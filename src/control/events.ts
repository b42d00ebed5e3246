import type { ErrorCode, ErrorDetails } from "../errors.ts";
import type { SealEvidence } from "../formats/image/model.ts";
import type { InstantFigures } from "./instant/options.ts";

/**
 * What a run tells while it works. The CLI prints these as newline-delimited JSON under `--json`, with
 * `time` added; docs/manager-contract.md and docs/events.schema.json describe every field. New events and
 * fields may come; none goes away.
 */

/** "main", or the multifd id. */
export type ChannelName = "main" | number;

export interface ChannelProgress {
  readonly channel: ChannelName;
  readonly bytes: number;
}

export interface ChannelFigures extends ChannelProgress {
  /** Over the time in which this channel moved bytes. */
  readonly bytesPerSecond: number;
}

/** Save: connections would succeed from now on. */
export interface ListeningEvent {
  readonly event: "listening";
  /** What to give QEMU: as it was given, except that a tcp port 0 is the port taken, and a unix socket may have got a private directory. */
  readonly address: string;
}

/** A channel is connected and has said what it is. */
export interface ChannelEvent {
  readonly event: "channel";
  readonly channel: ChannelName;
}

/** At most four a second. */
export interface ProgressEvent {
  readonly event: "progress";
  readonly bytes: number;
  /** Of the last moments, not of the whole run. */
  readonly bytesPerSecond: number;
  readonly elapsedMs: number;
  /** Restore and verify: how many bytes there are in all. */
  readonly totalBytes?: number;
  readonly channels: readonly ChannelProgress[];
  /** Save of a VM over QMP: what QEMU says, which knows how much is to come. */
  readonly qemu?: QemuFigures;
  /** Of the RAM that QEMU has looked at, 0 to 100; a VM that runs can make it sink. */
  readonly percent?: number;
  /** At the present rate. */
  readonly secondsLeft?: number;
  /** Instant restore; there `bytes` and `totalBytes` are of pages, and one comes every second at least. */
  readonly instant?: InstantFigures;
}

/**
 * Instant restore: QEMU has all devices and was told to run the guest. From here on the image is the other half of its
 * memory. A QEMU that was started with -S is paused until `cont`.
 */
export interface RunningEvent {
  readonly event: "running";
  /** From the first byte that QEMU got. */
  readonly elapsedMs: number;
}

/** query-migrate's figures; bytes are of guest RAM. */
export interface QemuFigures {
  readonly status: string;
  readonly transferredBytes: number;
  readonly remainingBytes: number;
  readonly totalBytes: number;
  readonly passes: number;
}

/** What became of the VM, when QEMU is driven over QMP. "migrated": it stands still, and all of it was sent. */
export interface VmEvent {
  readonly event: "vm";
  readonly state: "running" | "paused" | "migrating" | "migrated" | "ended";
}

/** Save with hold: every byte is on its way to disk and the streams were judged; waiting for commit or abort. */
export interface DrainedEvent {
  readonly event: "drained";
  readonly bytes: number;
  readonly elapsedMs: number;
  readonly evidence: Omit<SealEvidence, "decidedBy">;
  readonly channels: readonly ChannelFigures[];
}

/** Restore with verify "first": the whole image was read and fits; what comes next is the first connection. */
export interface VerifiedEvent {
  readonly event: "verified";
  /** Bytes of all channels. */
  readonly bytes: number;
  readonly blocks: number;
  readonly elapsedMs: number;
  readonly checked: CheckedHow;
}

/** Images saved without checksums have only their structure to check. */
export type CheckedHow = "checksums and structure" | "structure only";

/** The image as a finished run names it. */
export interface ImageFacts {
  /** As it was given. */
  readonly path: string;
  readonly format: "stream" | "mapped-ram" | "libvirt" | "qemu-stream" | "raw";
  /** null: it was not multifd-helper that made it an image. */
  readonly uuid: string | null;
  /** Bytes from the image's base to its end. */
  readonly bytes: number;
  /** Whether O_DIRECT was in use. */
  readonly directIo: boolean;
  readonly machine: string | null;
  readonly vmUuid: string | null;
  readonly multifdChannels: number;
  readonly compression: string | null;
}

/** Success. Save: data, seal and name are on disk. Restore: everything is delivered. Verify: everything was read and fits. */
export interface CompletedEvent {
  readonly event: "completed";
  /** Bytes of all channels. */
  readonly bytes: number;
  readonly elapsedMs: number;
  readonly image: ImageFacts;
  readonly channels: readonly ChannelFigures[];
  /** A snapshot with disks only: where the VM's disks go on. */
  readonly disks?: readonly DiskOverlay[];
  /** An instant restore only. */
  readonly instant?: InstantFigures;
}

/** An external snapshot of a disk. */
export interface DiskOverlay {
  /** qdev id or QOM path of the device, or its old-style name. */
  readonly device: string;
  /** The file that holds the disk as it was at the moment of the image. */
  readonly base: string;
  /** The qcow2 over it that takes what the VM writes since. */
  readonly overlay: string;
}

/** Failure: the one reason, and nothing comes after it. */
export interface FailedEvent {
  readonly event: "failed";
  readonly code: ErrorCode;
  readonly message: string;
  readonly details: ErrorDetails;
}

export type RunEvent =
  | ListeningEvent
  | VmEvent
  | VerifiedEvent
  | ChannelEvent
  | ProgressEvent
  | RunningEvent
  | DrainedEvent
  | CompletedEvent;
