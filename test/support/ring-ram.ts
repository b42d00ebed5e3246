const MIB = 2 ** 20;

/**
 * RAM that gives every channel more data than its ring of buffers holds (src/pool/ring-plan.ts), so that the ring is filled
 * and emptied a few times. About 60 % of a guest's pages (fillRam) go over the wire, in equal parts over the channels.
 */
export function ramFillingRings(channels: number): number {
  if (channels > 64) return 256 * MIB;
  return channels > 8 ? 128 * MIB : 64 * MIB;
}
