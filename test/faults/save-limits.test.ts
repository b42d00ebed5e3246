import { rm, writeFile } from "node:fs/promises";
import { describe, expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { buildImage, noiseChannels } from "../support/built-image.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { seededRandom } from "../support/random.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, listening, argsOf } = useSaves();
const IMAGE = "vm.mfd";

/** A save of the tiny migration that must succeed. */
async function saveTo(image: string, args: readonly string[]): Promise<void> {
  const { helper, peer } = await listening(image, args);
  await peer.play(tinyMigration());
  await helper.success();
}

describe("limits", () => {
  test("--expect-bytes refuses at once what does not fit, and --force goes on with a warning", async () => {
    expect(await start(argsOf(scratch.file(IMAGE), ["--expect-bytes", "4000T"])).failure()).toMatchObject({
      status: 5,
      code: "NO_SPACE",
      message: expect.stringContaining("--force"),
    });
    expect(await scratch.names()).toEqual([]);
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--expect-bytes", "4000T", "--force"]);
    await peer.play(tinyMigration());
    await helper.success();
    expect(helper.stderr).toContain("going on because of --force");
  });

  test("--expect-bytes lets through what fits", () => saveTo(scratch.file(IMAGE), ["--expect-bytes", "64K"]));

  test("--max-bytes ends a stream that grows beyond it", async () => {
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--max-bytes", "4M"]);
    await peer.playWithoutEnd(largeMigration(2, 16 * 2 ** 20));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "LIMIT_EXCEEDED" });
    expect(await scratch.names()).toEqual([]);
  });

  test("--max-bytes counts the end of a stream, too", async () => {
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--max-bytes", "100K"]);
    await peer.play(tinyMigration());
    expect(await helper.failure()).toMatchObject({ status: 5, code: "LIMIT_EXCEEDED" });
  });

  test("a file size limit of the process is no room", async () => {
    const command = `ulimit -f 4096; exec "$0" "$@"`;
    const image = scratch.file(IMAGE);
    const { helper, peer } = await listening(image, [], { shell: command });
    await peer.playWithoutEnd(largeMigration(2, 16 * 2 ** 20));
    expect(await helper.failure()).toMatchObject({ status: 5, code: "NO_SPACE" });
    expect(await scratch.names()).toEqual([]);
  });

  test("too few descriptors for the channels: an error that says so, and nothing is left", async () => {
    const shell = `ulimit -n 100; exec "$0" "$@"`;
    const { helper, peer } = await listening(scratch.file(IMAGE), [], { shell });
    await peer.playWithoutEnd(tinyMigration(60));
    expect(await helper.failure()).toMatchObject({
      status: 5,
      code: "LISTEN_FAILED",
      message: expect.stringContaining("ulimit -n"),
    });
    expect(await scratch.names()).toEqual([]);
  });

  test("too few descriptors for the channels of a restore", async () => {
    const channels = noiseChannels(seededRandom(), { multifdChannels: 60, barriers: 1, epochBytes: 4096 });
    await writeFile(scratch.file(IMAGE), buildImage(channels));
    const destination = await RecordingDestination.listen(scratch.file("in"), channels);
    const args = ["restore", scratch.file(IMAGE), "--json", "--connect", destination.address];
    const helper = start(args, { shell: `ulimit -n 100; exec "$0" "$@"` });
    // Connections are made while the threads load: either may take the last descriptor.
    const failure = await helper.failure();
    expect(failure.message).toContain("ulimit -n");
    expect([
      [3, "CONNECT_FAILED"],
      [5, "IO"],
    ]).toContainEqual([failure.status, failure.code]);
    await destination.close();
  });

  test("--checksum none: verify can say that the structure fits, and no more", async () => {
    await saveTo(scratch.file(IMAGE), ["--checksum", "none"]);
    expect(await verify({ image: scratch.file(IMAGE), workers: 1 })).toMatchObject({
      checked: "structure only",
    });
  });

  test("--direct-io off is honoured and told", async () => {
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--direct-io", "off"]);
    await peer.play(tinyMigration());
    expect(await helper.success()).toMatchObject({ image: { directIo: false } });
    await rm(scratch.file(IMAGE));
  });
});

describe("--rate", () => {
  test("holds the channels together to a speed", async () => {
    const rate = 4 * 2 ** 20;
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--rate", String(rate)]);
    await peer.play(largeMigration(1, 12 * 2 ** 20));
    await helper.success();
    // Received runs ahead of written by three of the four slots of 1 MiB, and by the little that main has.
    const ahead = 3.1 * 2 ** 20;
    const progress = helper.events.filter(({ event }) => event === "progress");
    expect(progress.length).toBeGreaterThan(3);
    for (const { bytes, elapsedMs } of progress as unknown as { bytes: number; elapsedMs: number }[]) {
      expect(bytes).toBeLessThanOrEqual(1.5 * rate * (elapsedMs / 1000) + ahead);
    }
  });

  test("waiting for one's turn is no stall", async () => {
    const { helper, peer } = await listening(scratch.file(IMAGE), ["--rate", "1M", "--stall-timeout", "0.6"]);
    await peer.play(largeMigration(1, 4 * 2 ** 20));
    await helper.success();
  });
});
