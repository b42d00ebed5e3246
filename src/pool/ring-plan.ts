const MIB = 1024 * 1024;

/** How a connection's buffers are cut. */
export interface RingPlan {
  readonly blockBytes: number;
  readonly slots: number;
}

/**
 * Three slots of 1 MiB overlap reading, checking and writing even for one channel. From the 17th
 * connection on, others keep the disk busy meanwhile and small rings do: 255 channels then need about
 * 110 MiB instead of 800. It depends on the connection's number alone, because nobody says beforehand
 * how many channels will come.
 */
export function drainPlan(connection: number): RingPlan {
  return connection < 17 ? { blockBytes: MIB, slots: 3 } : { blockBytes: MIB / 4, slots: 2 };
}

const READ_BUDGET = 112 * MIB;

/** Slots for reading blocks of a size that the image dictates, so that all channels together stay within a budget. */
export function readSlots(blockBytes: number, channels: number): number {
  const wanted = blockBytes > MIB / 2 ? 3 : 2;
  return Math.max(1, Math.min(wanted, Math.floor(READ_BUDGET / (channels * blockBytes))));
}
