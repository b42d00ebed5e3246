import { Buffer } from "node:buffer";
import { demand } from "./plain-reader/cursor.ts";
import { type MappedBlock, readMappedFile } from "./plain-reader/mapped-file.ts";
import { readTrailer } from "./plain-reader/trailer.ts";
import type { RandomMigration } from "./random-migration.ts";
import type { ModelBlock } from "./random-migration-pages.ts";

const PAGE = 4096;

/**
 * Is the mapped-ram image at `path` this migration, and is its trailer right? Throws, saying where, if not. A page that is not
 * zero must be present; one that is zero may be only if it was last sent as data. All that is not RAM must be the migration's.
 */
export async function expectMappedEqualsModel(path: string, migration: RandomMigration): Promise<void> {
  const { base, streamEnd } = await readTrailer(path);
  const mapped = await readMappedFile(path, base, streamEnd);
  same("the machine", mapped.machine, migration.machine);
  same("the commands", mapped.commands.join(), migration.commands.join());
  const uuid = migration.shape.validateUuid ? migration.uuid : null;
  same("the UUID in the configuration", mapped.uuid, uuid);
  demand(
    mapped.rest.equals(migration.rest),
    `what follows RAM differs: ${difference(mapped.rest, migration.rest)}`,
  );
  const listed = (blocks: readonly { name: string; bytes: Buffer }[]): string =>
    blocks.map(({ name, bytes }) => `${name} ${bytes.length}`).join();
  same("the block list", listed(mapped.blocks), listed(migration.blocks));
  for (const [n, block] of mapped.blocks.entries()) checkBlock(block, migration.blocks[n] as ModelBlock);
}

function checkBlock({ name, bytes, present }: MappedBlock, model: ModelBlock): void {
  for (const [page, sent] of model.sent.entries()) {
    const [start, end] = [page * PAGE, (page + 1) * PAGE];
    const wanted = model.bytes.subarray(start, end);
    const where = `page ${page} of "${name}", last sent as ${sent ?? "nothing"},`;
    const isZero = wanted.equals(ZERO_PAGE);
    demand(isZero || present[page] === true, `${where} is not zero, but not present`);
    demand(sent === "data" || present[page] === false, `${where} is present`);
    const found = bytes.subarray(start, end);
    demand(found.equals(wanted), `${where} differs: ${difference(found, wanted)}`);
  }
}

const ZERO_PAGE = Buffer.alloc(PAGE);

function same(what: string, found: unknown, wanted: unknown): void {
  demand(found === wanted, `${what}: ${found} stands there, but it must be ${wanted}`);
}

function difference(found: Buffer, wanted: Buffer): string {
  const at = wanted.findIndex((byte, n) => found[n] !== byte);
  if (at === -1) return `${found.length} bytes instead of ${wanted.length}`;
  return `at ${at} ${found.subarray(at, at + 16).toString("hex")} instead of ${wanted.subarray(at, at + 16).toString("hex")}`;
}
