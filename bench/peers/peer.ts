import type { BenchGuest } from "./guest.ts";
import type { Sample } from "./sample.ts";

/** What a peer may use. */
export interface Surroundings {
  /** Path of a name in a directory for sockets and for what lies there a moment. */
  readonly socket: (name: string) => string;
  /** Ends whatever runs. */
  readonly signal: AbortSignal;
}

/** Something that saves a guest. */
export interface SavePeer {
  readonly name: string;
  /** Saves a paused guest into a new file. */
  readonly save: (guest: BenchGuest, file: string, around: Surroundings) => Promise<Sample>;
}

/** Something that restores a guest. */
export interface RestorePeer {
  readonly name: string;
  /** Restores a file, which the same peer saved, into a guest that waits. */
  readonly restore: (guest: BenchGuest, file: string, around: Surroundings) => Promise<Sample>;
}
