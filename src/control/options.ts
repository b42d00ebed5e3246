import type { VmRecord } from "../formats/image/model.ts";
import type { DrainedEvent, RunEvent } from "./events.ts";

/** What of pino's interface a run uses; any logger of that shape will do. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export type DirectIo = "auto" | "on" | "off";

/** What save, restore and verify have in common. */
export interface RunOptions {
  /** A path, or `fd:N` for an inherited descriptor. */
  readonly image: string;
  /** Bytes before the image that belong to somebody else; the image starts at the next multiple of 4096. Default 0. */
  readonly offset?: number | undefined;
  /** auto probes and falls back to buffered, on refuses instead. Default auto. */
  readonly directIo?: DirectIo | undefined;
  /** Worker threads; default min(1 + channels, cores). */
  readonly workers?: number | undefined;
  /** Cancels the run: it cleans up and rejects with CANCELLED. */
  readonly signal?: AbortSignal | undefined;
  /** What it throws is logged and changes nothing. */
  readonly onEvent?: ((event: RunEvent) => void) | undefined;
  readonly log?: Log | undefined;
}

/** What save and restore have in common. */
export interface TransferOptions extends RunOptions {
  /** How long the full set of channels may take to connect. Default 60 000 ms. */
  readonly connectTimeoutMs?: number | undefined;
  /** How long all channels may be silent; 0 (the default) is for ever. */
  readonly stallTimeoutMs?: number | undefined;
  /** Bytes per second over all channels; unlimited when left out. */
  readonly rate?: number | undefined;
  /** Goes on, with a warning, where expectBytes or expect would refuse. */
  readonly force?: boolean | undefined;
}

export interface SaveOptions extends TransferOptions {
  /** `unix:PATH`, `fd:N` (a listening socket), or `tcp:HOST:PORT`. */
  readonly listen: string;
  /** Allows a tcp address that is not loopback. */
  readonly allowRemote?: boolean | undefined;
  /** Users besides root and ourselves whose processes may connect to a unix socket; the socket is opened to them. */
  readonly allowUids?: readonly number[] | undefined;
  /** What waits on an `fd:N` socket at the start belongs to an earlier migration: closes it. Default false. */
  readonly discardBacklog?: boolean | undefined;
  /**
   * Removes an earlier image at the path once QEMU connects, for a disk that holds one only. If the save then fails,
   * there is none. Default false.
   */
  readonly replace?: boolean | undefined;
  /** How many multifd channels are expected, 0..255; any complete set when left out. */
  readonly channels?: number | undefined;
  /**
   * stream (default): every channel as it came. mapped-ram: QEMU's own format, in which each page has one place, from
   * any QEMU.
   */
  readonly format?: "stream" | "mapped-ram" | undefined;
  /** Default crc32. */
  readonly checksum?: "crc32" | "none" | undefined;
  /** Refuses up front when the target has less room. */
  readonly expectBytes?: number | undefined;
  /** Fails when the streams grow beyond it. */
  readonly maxBytes?: number | undefined;
  /** Stored in the image; values that are not UTF-8 text are kept as they are. */
  readonly meta?: Readonly<Record<string, string | Uint8Array>> | undefined;
  /**
   * Hold: called once every byte is drained and judged; the image is published on "commit" and discarded
   * on anything else. Without it, completeness of the streams alone publishes.
   */
  readonly confirm?:
    | ((drained: DrainedEvent, signal: AbortSignal) => Promise<"commit" | "abort">)
    | undefined;
  /** Asked when the image is sealed, by what drives QEMU and has seen its `completed`: what to record of the VM. */
  readonly describeVm?: (() => SavedVm) | undefined;
}

/** What QMP told of the VM. */
export interface SavedVm {
  readonly qemuVersion: string;
  readonly record: VmRecord;
}

export interface Expectations {
  /** Of an image of streams; a mapped-ram image prescribes none. */
  readonly channels?: number | undefined;
  /** "none", or all zeros: the VM had no UUID. */
  readonly uuid?: string | undefined;
  readonly machine?: string | undefined;
}

/** Multifd channels, where nobody says how many and the image does not either. */
export const DEFAULT_CHANNELS = 4;

export interface RestoreOptions extends TransferOptions {
  /** `unix:PATH` or `tcp:HOST:PORT` where the destination QEMU listens. */
  readonly connect: string;
  /**
   * The destination's multifd-channels, 0..255; 0: it has multifd off. A mapped-ram image is fed through as many (default
   * 4). One of streams has a number of its own, and another one is refused, as with expect.
   */
  readonly channels?: number | undefined;
  /**
   * The destination's RAM is zero: zero pages of a mapped-ram image are left out, except those of small blocks, which
   * hold firmware. Wrong RAM if it is not. Default false: zero pages clear what is there. An image of streams is sent as
   * it is either way.
   */
  readonly zeroedRam?: boolean | undefined;
  /** Refused before connecting when the image differs. */
  readonly expect?: Expectations | undefined;
  /** The destination's UUID where it is another one on purpose: a clone. */
  readonly uuid?: string | undefined;
  /**
   * "blocks" (the default) checks each block before it is sent; "first" checks the whole image before the first
   * connection, and each block again.
   */
  readonly verify?: "first" | "blocks" | undefined;
}

export type VerifyOptions = RunOptions;

export interface InspectOptions {
  readonly image: string;
  readonly offset?: number | undefined;
}
