import type { ImageMetadata } from "../../formats/image/model.ts";
import type { MappedStream } from "../../formats/mapped-ram/model.ts";
import { type MappedImage, type OpenFile, openMapped, readFooter } from "./open.ts";
import { endOfUnsealed } from "./resumed.ts";
import { sumStream, walkStream } from "./stream.ts";

/** A mapped-ram file of which all was checked but the pages, as far as anything tells how it must be. */
export interface MappedContents {
  readonly stream: MappedStream;
  /** Pages of each block that the file holds. */
  readonly presentPages: readonly number[];
  /** File offset of the checksums of the pages' ranges; null: there are none. */
  readonly sumsOffset: number | null;
  /** UUID of the saved VM; null: nothing tells it, or it had none. */
  readonly uuid: string | null;
  /** null: it has no seal of ours, and so nothing tells whether all of it is as it was written. */
  readonly seal: {
    readonly imageUuid: string;
    /** Behind our footer. */
    readonly imageEnd: number;
    readonly metadata: ImageMetadata;
  } | null;
}

/**
 * Opens a sealed image, or a file that QEMU alone wrote, as far as its structure goes.
 * @param base where its stream begins
 * @throws MultifdError NOT_SEALED (one of ours that was never finished), IMAGE_DAMAGED, UNSUPPORTED_VERSION, NOT_AN_IMAGE, IO
 */
export async function openContents(file: OpenFile, base: number): Promise<MappedContents> {
  if ((await readFooter(file, base)) !== null) return contentsOf(await openMapped(file, base));
  const stream = await walkStream(file.fd, base, await endOfUnsealed(file, base));
  const { presentPages } = await sumStream(file.fd, stream);
  return { stream, presentPages, sumsOffset: null, uuid: stream.uuid, seal: null };
}

/** What a sealed image holds. */
export function contentsOf({ footer, trailer, stream }: MappedImage): MappedContents {
  const { seal, metadata, map } = trailer;
  return {
    stream,
    presentPages: map.blocks.map(({ presentPages }) => presentPages),
    sumsOffset: map.checksums ? seal.sums.offset : null,
    uuid: metadata.vmUuid ?? metadata.vm?.uuid ?? stream.uuid,
    seal: { imageUuid: footer.uuid, imageEnd: seal.imageEnd, metadata },
  };
}
