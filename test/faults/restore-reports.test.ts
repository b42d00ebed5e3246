import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { buildImage, type ChannelContent, noiseChannels } from "../support/built-image.ts";
import { type CliResult, useCli } from "../support/cli-run.ts";
import { seededRandom } from "../support/random.ts";
import { type Behaviour, RecordingDestination } from "../support/recording-destination.ts";

const MIB = 2 ** 20;

describe("a restore through the command line", () => {
  const cli = useCli();
  const destinations: RecordingDestination[] = [];
  let directory: string;
  let image: string;
  let channels: readonly ChannelContent[];

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "mfd-report-"));
    image = join(directory, "vm.mfd");
    channels = noiseChannels(seededRandom(), { multifdChannels: 4, barriers: 3, epochBytes: MIB });
    await writeFile(image, buildImage(channels));
  });
  afterEach(async () => {
    await Promise.all(destinations.splice(0).map((destination) => destination.close()));
    await rm(directory, { recursive: true });
  });

  async function listen(where = "socket", behaviour: Behaviour = {}): Promise<RecordingDestination> {
    const place = where === "tcp" ? where : join(directory, where);
    const destination = await RecordingDestination.listen(place, channels, behaviour);
    destinations.push(destination);
    return destination;
  }

  function expectDelivered(result: CliResult, destination: RecordingDestination): void {
    expect(result.events.at(-1)).toMatchObject({ event: "completed" });
    expect(result.status).toBe(0);
    expect(destination.firstWrong).toBeNull();
    expect(destination.received).toEqual(channels.map(({ bytes }) => bytes.length));
  }

  const total = (): number => channels.reduce((sum, { bytes }) => sum + bytes.length, 0);

  test("tells hello, each channel, progress and completed, and keeps to --rate", async () => {
    const destination = await listen();
    const rate = Math.round(total() / 1.5);
    const result = await cli(["restore", image, "--connect", destination.address, "--rate", `${rate}`])
      .finished;
    expectDelivered(result, destination);
    // The first block is free and each pays for itself afterwards.
    expect(result.elapsedMs).toBeGreaterThan(1000);
    const { events } = result;
    expect(events[0]).toMatchObject({ event: "hello", contract: 1 });
    const connected = events.filter(({ event }) => event === "channel").map(({ channel }) => channel);
    expect(connected).toEqual(["main", 0, 1, 2, 3]);
    const progress = events.filter(({ event }) => event === "progress");
    expect(progress.length).toBeGreaterThanOrEqual(3);
    let before = 0;
    for (const { bytes, totalBytes } of progress) {
      expect(totalBytes).toBe(total());
      expect(bytes).toBeGreaterThanOrEqual(before);
      expect(bytes).toBeLessThanOrEqual(total());
      before = bytes as number;
    }
    expect(events.at(-1)).toMatchObject({
      event: "completed",
      bytes: total(),
      image: { multifdChannels: 4 },
    });
    expect(events.at(-1)?.channels).toHaveLength(5);
  });

  test("a low --rate is no stall, however large the image's blocks are", async () => {
    channels = noiseChannels(seededRandom(), { multifdChannels: 1, barriers: 2, epochBytes: MIB / 2 });
    await writeFile(image, buildImage(channels, { blockBytes: MIB }));
    const destination = await listen();
    const rate = Math.round(total() / 3);
    const limits = ["--rate", `${rate}`, "--stall-timeout", "1"];
    const run = cli(["restore", image, "--connect", destination.address, ...limits]);
    expectDelivered(await run.finished, destination);
  });

  test("ends at once on SIGTERM, with status 143", async () => {
    const destination = await listen();
    const run = cli(["restore", image, "--connect", destination.address, "--rate", "1M"]);
    await run.until(({ event }) => event === "progress");
    const killed = performance.now();
    run.kill("SIGTERM");
    await run.until(({ event }) => event === "failed");
    const { status, events } = await run.finished;
    expect(status).toBe(143);
    expect(events.at(-1)).toMatchObject({
      event: "failed",
      code: "CANCELLED",
      details: { signal: "SIGTERM" },
    });
    expect(performance.now() - killed).toBeLessThan(900);
    expect(destination.firstWrong).toBeNull();
  });

  test("is completed only when the destination has read everything", async () => {
    const destination = await listen("socket", { holds: { peer: 0, ms: 1500, next: "read" } });
    const result = await cli(["restore", image, "--connect", destination.address]).finished;
    expectDelivered(result, destination);
    const at = (name: string): number =>
      Date.parse(String(result.events.find(({ event }) => event === name)?.time));
    expect(at("completed") - at("channel")).toBeGreaterThan(1400);
  });

  test("is not completed when the destination closes with main's last bytes unread", async () => {
    const destination = await listen("socket", { holds: { peer: 0, ms: 1500, next: "close" } });
    const { status, events } = await cli(["restore", image, "--connect", destination.address]).finished;
    expect(events.at(-1)).toMatchObject({ event: "failed", code: "DESTINATION_CLOSED" });
    expect(status).toBe(3);
    expect(destination.received.slice(1)).toEqual(channels.slice(1).map(({ bytes }) => bytes.length));
  });

  test.each(["on", "off"])("--direct-io %s", async (mode) => {
    const destination = await listen();
    const args = ["restore", image, "--connect", destination.address, "--direct-io", mode];
    const result = await cli(args).finished;
    expectDelivered(result, destination);
    expect(result.events.at(-1)).toMatchObject({ image: { directIo: mode === "on" } });
  });

  test("from an inherited descriptor", async () => {
    const file = await open(image);
    try {
      const destination = await listen();
      const args = ["restore", "fd:3", "--connect", destination.address];
      expectDelivered(await cli(args, { inherit: [file.fd] }).finished, destination);
    } finally {
      await file.close();
    }
  });

  test("from behind a manager's header", async () => {
    const header = Buffer.alloc(3 * 4096, "libvirt ");
    await writeFile(image, Buffer.concat([header, buildImage(channels)]));
    const destination = await listen();
    // Not a multiple of 4096: the image starts at the next one.
    const args = ["restore", image, "--connect", destination.address, "--offset", "8200"];
    expectDelivered(await cli(args).finished, destination);
    const without = await cli(["restore", image, "--connect", destination.address]).finished;
    expect(without.events.at(-1)).toMatchObject({ event: "failed", code: "NOT_AN_IMAGE" });
  });

  test("over tcp", async () => {
    const destination = await listen("tcp");
    expectDelivered(await cli(["restore", image, "--connect", destination.address]).finished, destination);
  });

  test("64 channels on one worker", async () => {
    channels = noiseChannels(seededRandom(), { multifdChannels: 64, barriers: 4, epochBytes: MIB / 8 });
    await writeFile(image, buildImage(channels));
    const destination = await listen();
    const args = ["restore", image, "--connect", destination.address, "--workers", "1"];
    expectDelivered(await cli(args).finished, destination);
  });

  test("255 channels", async () => {
    channels = noiseChannels(seededRandom(), { multifdChannels: 255, barriers: 3, epochBytes: MIB / 64 });
    await writeFile(image, buildImage(channels));
    const destination = await listen();
    expectDelivered(await cli(["restore", image, "--connect", destination.address]).finished, destination);
  });
});
