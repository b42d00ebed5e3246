import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { convert, diff, extract, save } from "../../src/index.ts";
import { applyStreams } from "../support/plain-reader/streams.ts";
import { buildRandomMigration, type RandomMigration } from "../support/random-migration.ts";
import { expectMappedEqualsModel } from "../support/random-migration-mapped.ts";
import type { ModelBlock } from "../support/random-migration-pages.ts";
import { sendMigration } from "../support/random-migration-sender.ts";
import { migrationShapes } from "../support/random-migration-shape.ts";
import { findRepoRoot } from "../support/repo.ts";
import { useScratch } from "../support/scratch.ts";
import { readBySpec } from "../support/spec-reader.ts";

const scratch = useScratch();
const page = readFileSync(path.join(findRepoRoot(), "docs/formats/image.md"), "utf8");

async function savedStream(image: string, migration: RandomMigration): Promise<void> {
  let sent: Promise<void> = Promise.resolve();
  await save({
    ...{ image, listen: `unix:${scratch.file("s")}`, channels: migration.shape.channels, workers: 2 },
    onEvent: (event) => {
      if (event.event === "listening") sent = sendMigration(event.address, migration);
    },
  });
  await sent;
}

test("through mapped-ram and any other number of channels RAM and devices stay what they were", async () => {
  await fc.assert(
    fc.asyncProperty(migrationShapes(), fc.nat(6), async (shape, channels) => {
      const migration = buildRandomMigration(shape);
      const [first, mapped, second, ram] = ["a.mfd", "b.mr", "c.mfd", "ram"].map(scratch.file) as [
        string,
        string,
        string,
        string,
      ];
      await savedStream(first, migration);
      await convert({ image: first, output: mapped, format: "mapped-ram", workers: 2 });
      await expectMappedEqualsModel(mapped, migration);

      await convert({ image: mapped, output: second, format: "stream", channels, workers: 2 });
      const [main, ...multifd] = readBySpec(page, await readFile(second)).channels.map(({ bytes }) => bytes);
      expect(multifd).toHaveLength(channels);
      const applied = applyStreams(main ?? Buffer.alloc(0), multifd);
      for (const [n, { name, bytes }] of migration.blocks.entries()) {
        expect(applied.blocks[n]?.bytes.equals(bytes), name).toBe(true);
      }
      expect(applied.rest.equals(migration.rest)).toBe(true);

      expect(await diff({ image: first, other: second })).toMatchObject({ differing: 0, unmatched: [] });
      const { name, bytes } = migration.blocks.at(-1) as ModelBlock;
      await extract({ image: first, output: ram, block: name });
      expect((await readFile(ram)).equals(bytes)).toBe(true);
    }),
    // Shrinking a counterexample takes as many conversions again.
    { numRuns: 6, interruptAfterTimeLimit: 40_000 },
  );
});
