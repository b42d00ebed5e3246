import { readFile, writeFile } from "node:fs/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { blocks } from "../../src/formats/image/blocks.ts";
import type { OpenedImage } from "../../src/formats/image/open.ts";
import { buildImage, type ChannelContent, noiseChannels, readChannels } from "../support/built-image.ts";
import { type CliResult, useCli } from "../support/cli-run.ts";
import { exampleImage } from "../support/example-image.ts";
import { seededRandom } from "../support/random.ts";
import { RecordingDestination } from "../support/recording-destination.ts";
import { useScratch } from "../support/scratch.ts";

describe("restore --verify first", () => {
  const scratch = useScratch();
  const cli = useCli();
  let image: OpenedImage;
  let channels: readonly ChannelContent[];
  let destination: RecordingDestination;

  beforeEach(() => use(exampleImage().bytes));
  afterEach(() => destination.close());

  async function use(bytes: Uint8Array): Promise<void> {
    await writeFile(scratch.file("vm.mfd"), bytes);
    ({ image, channels } = await readChannels(scratch.file("vm.mfd")));
    await destination?.close();
    destination = await RecordingDestination.listen(scratch.file("in"), channels);
  }

  const restored = (...options: readonly string[]): Promise<CliResult> =>
    cli(["restore", scratch.file("vm.mfd"), "--connect", destination.address, ...options]).finished;

  /** Flips a bit in the last byte of the last channel: far behind what the connections themselves carry. */
  async function damage(): Promise<void> {
    const last = [...blocks(image.index.channels.at(-1) as OpenedImage["index"]["channels"][number])].at(-1);
    const bytes = await readFile(scratch.file("vm.mfd"));
    const at = (last?.offset ?? 0) + (last?.length ?? 1) - 1;
    bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
    await writeFile(scratch.file("vm.mfd"), bytes);
  }

  test("tells what was checked before the first connection, then delivers", async () => {
    const { status, events } = await restored("--verify", "first");
    expect(status).toBe(0);
    const told = events.map(({ event }) => event).filter((event) => event !== "progress");
    const connected = channels.map(() => "channel");
    expect(told).toEqual(["hello", "verified", ...connected, "completed"]);
    expect(events.find(({ event }) => event === "verified")).toMatchObject({
      bytes: channels.reduce((sum, { bytes }) => sum + bytes.length, 0),
      blocks: image.index.channels.reduce((sum, record) => sum + [...blocks(record)].length, 0),
      checked: "checksums and structure",
    });
    expect(destination.firstWrong).toBeNull();
    expect(destination.received).toEqual(channels.map(({ bytes }) => bytes.length));
  });

  test("refuses a damaged image before it connects", async () => {
    await damage();
    const { status, events } = await restored("--verify", "first");
    expect(events.at(-1)).toMatchObject({ event: "failed", code: "IMAGE_DAMAGED" });
    expect(status).toBe(4);
    expect(destination.peers).toEqual([]);
  });

  test.each([[], ["--verify", "blocks"]])("by default (%j) damage is met on the way", async (...options) => {
    // More than one block a channel: the first ones are checked before the connections are made, whatever is asked.
    const content = { multifdChannels: 2, barriers: 2, epochBytes: 2 ** 21 };
    await use(buildImage(noiseChannels(seededRandom(), content)));
    await damage();
    const { status, events } = await restored(...options);
    expect(events.at(-1)).toMatchObject({ event: "failed", code: "IMAGE_DAMAGED" });
    expect(status).toBe(4);
    expect(destination.peers.length).toBeGreaterThan(0);
    expect(destination.firstWrong).toBeNull();
  });

  test("anything else is no time to verify", async () => {
    const { status, events } = await restored("--verify", "last");
    expect(status).toBe(2);
    expect(events.at(-1)).toMatchObject({ code: "USAGE", message: expect.stringContaining("--verify") });
  });
});
