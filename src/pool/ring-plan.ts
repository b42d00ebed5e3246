const MIB = 1024 * 1024;

/** How a connection's buffers are cut. */
export interface RingPlan {
  readonly blockBytes: number;
  readonly slots: number;
}

/**
 * Three slots of 1 MiB overlap reading, checking and writing even for one channel. Where many channels keep the disk
 * busy together, small rings do: all 256 connections then need about 130 MiB instead of 770. It depends on the
 * connection's number alone, because nobody says beforehand how many channels will come.
 */
export function drainPlan(connection: number): RingPlan {
  if (connection < 9) return { blockBytes: MIB, slots: 3 };
  if (connection < 65) return { blockBytes: MIB / 4, slots: 2 };
  // QEMU makes 256 connections at most: what comes later is a channel only where others came and went before.
  return connection < 256 ? { blockBytes: MIB / 8, slots: 3 } : { blockBytes: MIB / 16, slots: 2 };
}

const READ_BUDGET = 112 * MIB;

/** Slots for reading blocks of a size that the image dictates, so that all channels together stay within a budget. */
export function readSlots(blockBytes: number, channels: number): number {
  const wanted = blockBytes > MIB / 2 ? 3 : 2;
  return Math.max(1, Math.min(wanted, Math.floor(READ_BUDGET / (channels * blockBytes))));
}

/**
 * How each of so many channels reads ahead in a mapped-ram file: 96 MiB in all at most. Blocks are whole checksummed
 * ranges; a channel of 255 then sends packets of 32 pages.
 */
export function pagesPlan(channels: number): RingPlan {
  if (channels <= 8) return { blockBytes: MIB, slots: 3 };
  return { blockBytes: channels <= 64 ? MIB / 4 : MIB / 8, slots: 3 };
}
