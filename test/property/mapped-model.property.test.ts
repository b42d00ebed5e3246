import { Buffer } from "node:buffer";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { buildRandomMigration, type RandomMigration } from "../support/random-migration.ts";
import { expectMappedEqualsModel } from "../support/random-migration-mapped.ts";
import type { ModelBlock } from "../support/random-migration-pages.ts";
import {
  contentOf,
  type MappedContent,
  presentPages,
  writeSealed,
} from "../support/random-migration-sealed.ts";
import { type MigrationShape, migrationShapes } from "../support/random-migration-shape.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();
// The file's writer in the tests puts no command in front of RAM and no UUID into the configuration.
const PLAIN: Partial<MigrationShape> = { returnPath: false, validateUuid: false, style: "7.2" };

test("every guest's file, sealed, is what the plain reader takes it for", async () => {
  let run = 0;
  const checksums = fc.constantFrom("crc32", "none");
  await fc.assert(
    fc.asyncProperty(migrationShapes(PLAIN), checksums, async (shape, checksum) => {
      const migration = buildRandomMigration(shape);
      const image = scratch.file(`${run++}.mr`);
      await writeSealed(image, migration, contentOf(migration), checksum);
      await expectMappedEqualsModel(image, migration);
    }),
    { numRuns: 15 },
  );
});

describe("what is not the migration's is found", () => {
  const migration = buildRandomMigration({
    ...{
      seed: 7,
      blocks: [{ name: "mem", pages: 200 }],
      channels: 2,
      style: "7.2",
      zeroPages: "legacy",
      passes: 3,
    },
    ...{ scattered: false, unsent: true, compression: "none", returnPath: false, validateUuid: false },
    background: false,
  });
  const [mem] = migration.blocks as [ModelBlock];
  const pageOf = (how: ModelBlock["sent"][number]): number => {
    const found = mem.sent.findIndex((sent, page) => sent === how && (how !== "data" || notZero(page)));
    expect(found).toBeGreaterThanOrEqual(0);
    return found;
  };
  const notZero = (page: number): boolean =>
    mem.bytes.subarray(page * 4096, (page + 1) * 4096).some((byte) => byte > 0);

  async function verdict(content: Partial<MappedContent>, as: RandomMigration = migration): Promise<string> {
    const image = scratch.file("vm.mr");
    await writeSealed(image, migration, { ...contentOf(migration), ...content });
    return expectMappedEqualsModel(image, as).then(
      () => "equal",
      (error: Error) => error.message,
    );
  }

  test("nothing in the file itself", async () => {
    expect(await verdict({})).toBe("equal");
  });

  test("a page that is missing", async () => {
    const page = pageOf("data");
    const pages = presentPages(mem);
    delete pages[page];
    expect(await verdict({ pages: () => pages })).toMatch(
      `page ${page} of "mem", last sent as data, is not zero, but not`,
    );
  });

  test("a page that was last sent as zero, or never, and is present", async () => {
    for (const how of ["zero", null] as const) {
      const page = pageOf(how);
      const pages = { ...presentPages(mem), [page]: Buffer.alloc(4096) };
      expect(await verdict({ pages: () => pages })).toMatch(
        `page ${page} of "mem", last sent as ${how ?? "nothing"}, is present`,
      );
    }
  });

  test("a page with a stale byte", async () => {
    const page = pageOf("data");
    const stale = Buffer.from(presentPages(mem)[page] as Buffer);
    stale[77] = (stale[77] ?? 0) ^ 1;
    expect(await verdict({ pages: () => ({ ...presentPages(mem), [page]: stale }) })).toMatch(
      `page ${page} of "mem", last sent as data, differs: at 77`,
    );
  });

  test("devices that are not the source's, or another machine", async () => {
    const rest = Buffer.from(migration.rest);
    rest[20] = (rest[20] ?? 0) ^ 1;
    expect(await verdict({ rest })).toMatch("what follows RAM differs: at 20");
    expect(await verdict({}, { ...migration, machine: "pc-q35-7.1" })).toMatch(
      "the machine: pc-q35-7.2 stands there",
    );
  });
});
