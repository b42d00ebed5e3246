import type { Channel, Extent } from "./model.ts";

/** Extents in the form in which channels keep them. */
export function packExtents(extents: readonly Extent[]): Float64Array {
  return Float64Array.from(extents.flatMap(({ offset, length }) => [offset, length]));
}

export function extentCount(channel: Pick<Channel, "extents">): number {
  return channel.extents.length / 2;
}

/** The extents of a channel in the order of its bytes. */
export function* extentsOf(channel: Pick<Channel, "extents">): Generator<Extent, void, undefined> {
  const { extents } = channel;
  for (let at = 0; at < extents.length; at += 2) {
    yield { offset: extents[at] as number, length: extents[at + 1] as number };
  }
}
