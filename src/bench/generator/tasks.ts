import { entryPoint } from "../../entry-points.ts";
import type { PacketTemplate } from "./packets.ts";

/*
 * What the generator's threads are asked to do. A task is one connection; a thread serves several side by side.
 */

/** The threads' code, known by URL only. */
export const THREAD_URL: URL = entryPoint("src/bench/generator/thread");

/** What every thread gets when it starts. */
export interface ThreadData {
  readonly templates: readonly PacketTemplate[];
}

/** Words of the memory that a migration's main and its channels share. */
export const SHARED = {
  /** The next packet's worth of RAM that nobody has taken: QEMU, too, gives a packet to whichever channel is free. */
  NEXT: 0,
  /** How many channels are connected. */
  CONNECTED: 1,
  /** 1: all is given up. */
  GIVE_UP: 2,
  WORDS: 3,
} as const;

/** Task "send": one channel of a migration into a helper. */
export interface SendTask {
  readonly address: string;
  readonly id: number;
  readonly channels: number;
  readonly block: string;
  /** How many packets of 128 pages RAM is. */
  readonly packets: number;
  readonly shared: Int32Array;
}

/** Task "read": one connection of a destination, read to its end and thrown away. Answers how many bytes came. */
export interface ReadTask {
  /** The thread owns it from here on. */
  readonly fd: number;
}
