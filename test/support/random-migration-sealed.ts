import { Buffer } from "node:buffer";
import { randomUUID } from "node:crypto";
import { writeSync } from "node:fs";
import { sealMapped } from "../../src/control/mapped-ram/seal.ts";
import { openTarget } from "../../src/io/image-target/open.ts";
import { mappedFile } from "./mapped-file.ts";
import type { RandomMigration } from "./random-migration.ts";
import type { ModelBlock } from "./random-migration-pages.ts";
import * as wire from "./stream-builder.ts";

/** RAM's section id in what mappedFile() writes. */
const RAM_ID = 1;

/** What the present pages of a block hold, and what stands behind RAM; to do harm, other ones than the migration's. */
export interface MappedContent {
  readonly pages: (block: ModelBlock) => Readonly<Record<number, Buffer>>;
  readonly rest: Buffer;
}

export function contentOf({ rest }: RandomMigration): MappedContent {
  return { pages: presentPages, rest };
}

/** Every page that was last sent as data: the most that may be present. */
export function presentPages({ bytes, sent }: ModelBlock): Record<number, Buffer> {
  const pages = sent.flatMap((how, page) =>
    how === "data" ? [[page, bytes.subarray(page * wire.PAGE_BYTES, (page + 1) * wire.PAGE_BYTES)]] : [],
  );
  return Object.fromEntries(pages);
}

/** Makes a file as QEMU would write it of this guest and seals it. Commands on main are not written. */
export async function writeSealed(
  image: string,
  { blocks, machine }: RandomMigration,
  content: MappedContent,
  checksum: "crc32" | "none" = "crc32",
): Promise<void> {
  const file = mappedFile({
    machine,
    blocks: blocks.map((block) => ({
      name: block.name,
      bytes: block.bytes.length,
      pages: content.pages(block),
    })),
    rest: Buffer.concat([wire.endSection(RAM_ID, wire.eosWord), content.rest]),
  });
  const target = await openTarget({ image, offset: 0, directIo: "off", onNote: () => undefined });
  writeSync(target.fd, file, 0, file.length, 0);
  const identity = { uuid: randomUUID(), createdMs: Date.now() };
  await sealMapped(target, identity, { image, vm: null, vmUuid: null, checksum, workers: 1 });
  await target.publish();
}
