import fs from "node:fs";
import { writeFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { buildImage, type ChannelContent, noiseChannels } from "../support/built-image.ts";
import { tinyMigration } from "../support/fake-peer.ts";
import type { HelperProcess } from "../support/helper-process.ts";
import { seededRandom } from "../support/random.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useSaves } from "../support/save-under-test.ts";

const { scratch, start, listening, argsOf } = useSaves();
const image = (): string => scratch.file("vm.mfd");
const BUSY = { status: 5, code: "TARGET_BUSY" };

/** Without checksums nothing else would tell a mixture of two images. */
describe("an image that is written in place", () => {
  const destinations: RecordingDestination[] = [];
  let channels: readonly ChannelContent[];
  let fd: number;
  beforeEach(async () => {
    channels = noiseChannels(seededRandom(), { multifdChannels: 2, barriers: 2, epochBytes: 2 ** 20 });
    await writeFile(image(), buildImage(channels));
    fd = fs.openSync(image(), "r+");
  });
  afterEach(async () => {
    await Promise.all(destinations.splice(0).map((destination) => destination.close()));
    fs.closeSync(fd);
  });

  async function restoring(name: string, ...options: readonly string[]): Promise<HelperProcess> {
    const destination = await RecordingDestination.listen(scratch.file(name), channels);
    destinations.push(destination);
    return start(["restore", image(), "--json", "--connect", destination.address, ...options]);
  }

  test("is not written over while it is restored, which several may do", async () => {
    const slow = await restoring("first", "--rate", "1M");
    await slow.waitEvent("progress");
    expect(await start(argsOf("fd:3"), { fds: [fd] }).failure()).toMatchObject(BUSY);
    await (await restoring("second")).success();
    slow.signal("SIGTERM");
    expect(await slow.exit()).toBe(143);
  });

  test("is not restored or verified while a save waits for its QEMU, and is afterwards", async () => {
    const { helper } = await listening("fd:3", [], { fds: [fd] });
    expect(await (await restoring("early")).failure()).toMatchObject(BUSY);
    expect(await start(["verify", image(), "--json"]).failure()).toMatchObject(BUSY);
    expect(destinations[0]?.peers).toEqual([]);
    helper.signal("SIGTERM");
    expect(await helper.exit()).toBe(143);
    await (await restoring("late")).success();
  });

  test("is never finished while its data comes", async () => {
    const { helper, peer } = await listening("fd:3", ["--hold"], { fds: [fd] });
    await peer.play(tinyMigration());
    await helper.waitEvent("drained");
    expect(await (await restoring("in")).failure()).toMatchObject({ status: 4, code: "NOT_SEALED" });
  });
});
