import type { ImageIndex, WrittenIndex } from "../../src/formats/image/model.ts";

/**
 * What a reader must make of a written index: the places of the checksums instead of the checksums, counted by the
 * tables of docs/formats/image.md.
 * @param offset where the index lies in the image
 */
export function indexAsRead(index: WrittenIndex, offset = 0): ImageIndex {
  let at = offset + 16;
  const channels = index.channels.map(({ checksums, ...channel }) => {
    const checksumsAt = at + 48 + 8 * (channel.extents.length + channel.marks.length);
    at = checksumsAt + 8 * Math.ceil((checksums?.length ?? 0) / 2);
    return { ...channel, checksumsAt: checksums === null ? null : checksumsAt };
  });
  return { channels };
}
