import fs from "node:fs";
import { crc32 } from "node:zlib";
import { damaged } from "../../formats/image/damage.ts";
import {
  decodeFooter,
  FOOTER_BYTES,
  type Footer,
  footerOffset,
  sealOf,
} from "../../formats/mapped-ram/footer.ts";
import type { MappedStream } from "../../formats/mapped-ram/model.ts";
import {
  checkAgreement,
  checkSeal,
  type MappedTrailer,
  openTrailer,
} from "../../formats/mapped-ram/trailer.ts";
import { readAligned, readSpan } from "../../io/file-io.ts";
import type { Source } from "../../io/source.ts";
import { endOfUnsealed } from "./resumed.ts";
import { type StreamSums, sumStream, walkStream } from "./stream.ts";

/** An open file and its size. */
export interface OpenFile {
  readonly fd: number;
  readonly bytes: number;
}

/** A file as the readers of its stream take it. */
export function openFileOf({ fd, base, available }: Source): OpenFile {
  return { fd, bytes: base + available };
}

/** A sealed mapped-ram image of which all was checked but the pages. */
export interface MappedImage {
  readonly footer: Footer;
  readonly trailer: MappedTrailer;
  readonly stream: MappedStream;
}

const PIECE = 1024 * 1024;

/** The footer of a file whose stream begins at `base`; null when nobody but QEMU wrote it. Throws IMAGE_DAMAGED, UNSUPPORTED_VERSION. */
export async function readFooter(file: OpenFile, base: number): Promise<Footer | null> {
  const at = footerOffset(file.bytes);
  return at < base ? null : decodeFooter(await readAligned(file.fd, at, FOOTER_BYTES));
}

/**
 * Checks everything of a sealed image but its pages, in the order of docs/formats/mapped-ram.md, "Reading".
 * @throws MultifdError NOT_SEALED, IMAGE_DAMAGED, UNSUPPORTED_VERSION, NOT_AN_IMAGE, IO
 */
export async function openMapped(file: OpenFile, base: number): Promise<MappedImage> {
  const footer = await readFooter(file, base);
  // What is no mapped-ram file at all, or is cut, is told as such.
  if (footer === null) await walkStream(file.fd, base, await endOfUnsealed(file, base));
  const seal = sealOf(footer);
  checkSeal(seal, base, imageEnd(file, base));
  const { map, metadata } = seal;
  const trailer = openTrailer(
    seal,
    await readAligned(file.fd, map.offset, map.length),
    await readAligned(file.fd, metadata.offset, metadata.length),
  );
  await checkSums(file, trailer);
  checkStreamSums(
    trailer,
    await sumStream(file.fd, { ...seal, end: seal.streamEnd, blocks: trailer.blocks }),
  );
  const stream = await walkStream(file.fd, base, seal.streamEnd);
  checkAgreement(trailer, stream);
  return { footer: footer as Footer, trailer, stream };
}

/**
 * Where an image must end: a file that is nothing else ends there. A device goes on as far as it has bytes, and a file that
 * holds an image at an offset belongs to somebody who may put something behind it.
 */
function imageEnd({ fd, bytes }: OpenFile, base: number): number {
  const alone = base === 0 && fs.fstatSync(fd).isFile();
  return alone ? bytes : footerOffset(bytes) + FOOTER_BYTES;
}

/** The checksums' own checksum: piece by piece, for there are 64 MiB of them for each TiB of RAM. */
async function checkSums(file: OpenFile, { seal: { sums } }: MappedTrailer): Promise<void> {
  let crc = 0;
  for (let at = 0; at < sums.length; at += PIECE) {
    crc = crc32(await readSpan(file.fd, sums.offset + at, Math.min(PIECE, sums.length - at)), crc);
  }
  if (crc === sums.crc32) return;
  throw damaged(`checksums at byte ${sums.offset}`, "their checksum does not fit their bytes");
}

function checkStreamSums({ seal, map }: MappedTrailer, found: StreamSums): void {
  if (found.crc32 !== seal.streamCrc) {
    throw damaged(
      `QEMU's stream from byte ${seal.base} to ${seal.streamEnd}`,
      "its checksum does not fit its bytes",
    );
  }
  for (const [number, { presentPages }] of map.blocks.entries()) {
    const counted = found.presentPages[number];
    if (counted === presentPages) continue;
    throw damaged(`map, block ${number}`, `it has ${presentPages} pages, but its bitmap ${counted}`);
  }
}
