const MIB = 1024 * 1024;

/** How a connection's buffers are cut. */
export interface RingPlan {
  readonly blockBytes: number;
  readonly slots: number;
}

/** So few channels have to keep all the threads that write busy. */
const FEW = 2;

/**
 * Four slots of 1 MiB keep up to three writes of a channel under way: with one, the disk waits between them. Where many channels keep
 * it busy together, small rings do: all 256 connections then need about 125 MiB instead of 1 GiB. It depends on the connection's number,
 * because how many channels will come nobody has to say beforehand; and those of one save should have alike, as channels that took
 * more than the others make the end of a restore slow.
 * @param channels as many as were announced
 */
export function drainPlan(connection: number, channels?: number): RingPlan {
  if (connection < 9) return { blockBytes: MIB, slots: channels !== undefined && channels <= FEW ? 6 : 4 };
  if (connection < 33) return { blockBytes: MIB / 2, slots: 2 };
  if (connection < 65) return { blockBytes: MIB / 4, slots: 2 };
  // QEMU makes 256 connections at most: what comes later is a channel only where others came and went before.
  return connection < 256 ? { blockBytes: MIB / 8, slots: 2 } : { blockBytes: MIB / 16, slots: 2 };
}

const READ_BUDGET = 112 * MIB;

/** Slots for checking blocks of a size that the image dictates, so that all channels together stay within a budget. */
export function readSlots(blockBytes: number, channels: number): number {
  return slotsWithinBudget(blockBytes > MIB / 2 ? 3 : 2, blockBytes, channels);
}

/** The same for sending them. @param channels with main among them, which has little */
export function feedSlots(blockBytes: number, channels: number): number {
  return slotsWithinBudget(channels < OVERLAPPING ? 3 : 2, blockBytes, channels);
}

function slotsWithinBudget(wanted: number, blockBytes: number, channels: number): number {
  return Math.max(1, Math.min(wanted, Math.floor(READ_BUDGET / (channels * blockBytes))));
}

/** So many channels keep the disk busy while each of them sends: a third slot then is only more memory to go through. */
const OVERLAPPING = 4;
const PAGES_BUDGET = 64 * MIB;

/**
 * How each of so many channels reads ahead in a mapped-ram file. Blocks are whole checksummed ranges, and as large as the budget
 * allows: each one costs a read and two or more changes of thread. A channel of 255 then sends packets of 32 pages.
 */
export function pagesPlan(channels: number): RingPlan {
  if (channels < OVERLAPPING) return { blockBytes: MIB, slots: 3 };
  let blockBytes = MIB;
  while (2 * channels * blockBytes > PAGES_BUDGET) blockBytes /= 2;
  return { blockBytes, slots: 2 };
}
