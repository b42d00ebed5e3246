import fc from "fast-check";
import { expect, test } from "vitest";
import { runSave } from "../../src/control/save-run.ts";
import { inspect, type SaveOptions, verify } from "../../src/index.ts";
import type { WorkerCode } from "../../src/pool/worker-code.ts";
import { buildRandomMigration, type RandomMigration } from "../support/random-migration.ts";
import { expectMappedEqualsModel } from "../support/random-migration-mapped.ts";
import { sendMigration } from "../support/random-migration-sender.ts";
import { type MigrationShape, migrationShapes } from "../support/random-migration-shape.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();
const url = new URL("../support/workers/delayed-place.js", import.meta.url);

async function savedMapped(
  migration: RandomMigration,
  options: Partial<SaveOptions> = {},
  code?: WorkerCode,
): Promise<string> {
  const image = scratch.file("vm.mr");
  let sent: Promise<void> = Promise.resolve();
  await runSave(
    {
      ...{ image, format: "mapped-ram", listen: `unix:${scratch.file("s")}`, workers: 2 },
      channels: migration.shape.channels,
      onEvent: (event) => {
        if (event.event === "listening") sent = sendMigration(event.address, migration);
      },
      ...options,
    },
    { code },
  );
  await sent;
  return image;
}

test("whatever was sent, a mapped-ram image holds it, each page at its place", async () => {
  await fc.assert(
    fc.asyncProperty(migrationShapes(), async (shape) => {
      const migration = buildRandomMigration(shape);
      const image = await savedMapped(migration);
      await expectMappedEqualsModel(image, migration);
      expect(await verify({ image, workers: 2 })).toMatchObject({ checked: "checksums and structure" });
      expect(await inspect({ image })).toMatchObject({ format: "mapped-ram", sealed: true });
    }),
    // Shrinking a counterexample takes as many saves again.
    { numRuns: 40, interruptAfterTimeLimit: 40_000 },
  );
});

/** Pages travel again and again, on any of the channels. */
const RESENT: MigrationShape = fc.sample(migrationShapes({ channels: 6, passes: 6, compression: "none" }), {
  seed: 7,
  numRuns: 1,
})[0] as MigrationShape;

test("on a disk that finishes writes in any order, too", async () => {
  const migration = buildRandomMigration(RESENT);
  const image = await savedMapped(migration, {}, { url, name: "place" });
  await expectMappedEqualsModel(image, migration);
});

test("without waiting at barriers, older pages would replace newer ones", async () => {
  const migration = buildRandomMigration(RESENT);
  const image = await savedMapped(migration, {}, { url, name: "placeWithoutBarriers" });
  await expect(expectMappedEqualsModel(image, migration)).rejects.toThrow(/differs|present|checksum/);
});
