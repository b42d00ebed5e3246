import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import path from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { judgeCompleteness } from "../../src/formats/migration/completeness.ts";
import { save } from "../../src/index.ts";
import { applyStreams } from "../support/plain-reader/streams.ts";
import { buildRandomMigration, type RandomMigration } from "../support/random-migration.ts";
import { sendMigration } from "../support/random-migration-sender.ts";
import { migrationShapes } from "../support/random-migration-shape.ts";
import { findRepoRoot } from "../support/repo.ts";
import { useScratch } from "../support/scratch.ts";
import { readBySpec } from "../support/spec-reader.ts";
import { walkMigration } from "../support/walk.ts";

const scratch = useScratch();
const page = readFileSync(path.join(findRepoRoot(), "docs/formats/image.md"), "utf8");

/** Applied by the plain reader, the streams make the RAM that the model has. */
function expectModel(main: Buffer, channels: readonly Buffer[], migration: RandomMigration): void {
  const applied = applyStreams(main, channels);
  expect(applied.blocks.map(({ name }) => name)).toEqual(migration.blocks.map(({ name }) => name));
  for (const [n, { name, bytes, sent }] of migration.blocks.entries()) {
    expect(applied.blocks[n]?.bytes.equals(bytes), name).toBe(true);
    expect(applied.blocks[n]?.came, name).toEqual(sent);
  }
  expect(applied.commands).toEqual(migration.commands);
  expect(applied.rest.equals(migration.rest)).toBe(true);
}

test("two readers understand every migration alike, and call it complete", () => {
  fc.assert(
    fc.property(migrationShapes(), (shape) => {
      const migration = buildRandomMigration(shape);
      expectModel(migration.main, migration.channels, migration);
      const { main, channels } = walkMigration(migration);
      expect(judgeCompleteness(main, channels, shape.channels)).toMatchObject(
        shape.background ? { verdict: "undecided", sealable: true } : { verdict: "complete", reasons: [] },
      );
      expect(main.machine).toBe(migration.machine);
      expect(main.barriers.length).toBe(migration.steps.main.length - 1);
      expect(main.bytes - migration.rest.length).toBe(
        shape.background ? main.bytes - migration.rest.length : main.ramEnd,
      );
    }),
    { numRuns: 150 },
  );
});

test("whatever was sent is what the saved image holds", async () => {
  let run = 0;
  await fc.assert(
    fc.asyncProperty(migrationShapes(), async (shape) => {
      const migration = buildRandomMigration(shape);
      const image = scratch.file(`${run++}.mfd`);
      await saveMigration(image, migration);
      const { channels } = readBySpec(page, await readFile(image));
      const [main, ...multifd] = channels.map(({ bytes }) => bytes);
      expectModel(main ?? Buffer.alloc(0), multifd, migration);
    }),
    // Shrinking a counterexample takes as many saves again.
    { numRuns: 30, interruptAfterTimeLimit: 40_000 },
  );
});

async function saveMigration(image: string, migration: RandomMigration): Promise<void> {
  let sent: Promise<void> = Promise.resolve();
  await save({
    image,
    listen: `unix:${scratch.file("s")}`,
    channels: migration.shape.channels,
    workers: 2,
    onEvent: (event) => {
      if (event.event === "listening") sent = sendMigration(event.address, migration);
    },
  });
  await sent;
}
