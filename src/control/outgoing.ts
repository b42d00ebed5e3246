import type { WorkerCode } from "../pool/worker-code.ts";
import type { ChannelName, ImageFacts } from "./events.ts";

/**
 * What goes out to a destination: all that a run needs to know of an image, whatever its kind. The file it reads from
 * must stay open until the run is over.
 */
export interface OutgoingPlan {
  /** What feeds a channel. */
  readonly code: WorkerCode;
  /** Main first, then channel by channel: QEMU 7.2 takes the first connection for main, whatever it says. */
  readonly channels: readonly OutgoingChannel[];
  /** Of all channels. */
  readonly totalBytes: number;
  readonly image: ImageFacts;
}

export interface OutgoingChannel {
  readonly channel: ChannelName;
  /**
   * Goes out with the connection itself, and is checked before the first connection: a destination that got some of its
   * channels waits for the others, and no cut ends that.
   */
  readonly firstBytes: Uint8Array;
  /** What the worker gets besides what OutgoingTask says of the connection. */
  readonly task: object;
}
