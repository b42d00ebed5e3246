import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { migrateTo, waitMigration } from "../../src/vm/migration.ts";
import { type Guest, Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { findRepoRoot } from "../support/repo.ts";
import { readBySpec } from "../support/spec-reader.ts";
import { readMigrationBySpec, type SpecMigration } from "../support/stream-spec-reader.ts";

const RAM = 64 * 2 ** 20;

const [streams, images] = ["migration-stream", "image"].map((name) =>
  readFileSync(join(findRepoRoot(), `docs/formats/${name}.md`), "utf8"),
) as [string, string];

describeEachQemu("readers made from the pages alone find the RAM of a real guest", (binary) => {
  let lab: Lab;
  let source: Guest;

  beforeAll(async () => {
    lab = await Lab.open();
    source = await lab.source({ binary, ramBytes: RAM });
  });
  afterAll(() => lab.close());

  async function expectRam(read: SpecMigration): Promise<void> {
    const ram = await readFile(source.ram?.path as string);
    expect(read.ram.get("ram")?.equals(ram)).toBe(true);
    expect(read.devices).toContain("timer");
  }

  test("in a stream without multifd", async () => {
    const file = lab.file("vm.stream");
    await migrateTo(source.vm.qmp, `exec:cat >${file}`);
    await waitMigration(source.vm.qmp, 60_000);
    await expectRam(readMigrationBySpec(streams, await readFile(file), []));
  });

  test("over three channels, in an image", async () => {
    await source.vm.qmp.execute("cont");
    await source.vm.qmp.execute("stop");
    const image = lab.file("vm.mfd");
    await lab.save(source, { channels: 3 }, { image });
    const [main, ...channels] = readBySpec(images, await readFile(image)).channels.map(({ bytes }) => bytes);
    const read = readMigrationBySpec(streams, main as Buffer, channels);
    expect(read.barriers).toBe(binary.major >= 10 ? "modern" : "legacy");
    expect(read.channels.map(({ syncs }) => syncs)).toEqual(Array(3).fill(read.dataPages.length - 1));
    await expectRam(read);
  });
});
