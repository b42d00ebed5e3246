import { writeFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { verify } from "../../src/index.ts";
import { buildImage, type ChannelContent, noiseChannels } from "../support/built-image.ts";
import { largeMigration, tinyMigration } from "../support/fake-peer.ts";
import { withFault } from "../support/fault-spec.ts";
import type { HelperProcess } from "../support/helper-process.ts";
import { seededRandom } from "../support/random.ts";
import { useRawListeners } from "../support/raw-listener.ts";
import { type Behaviour, RecordingDestination } from "../support/recording-destination.ts";
import { goodImage, useSaves } from "../support/save-under-test.ts";

const MIB = 2 ** 20;
const { scratch, start, listening } = useSaves();
const rawListener = useRawListeners();
const image = (): string => scratch.file("vm.mfd");

/** Cancelled, told so, and quickly: giving a QEMU up that may still be connecting takes the longest. */
async function terminated(helper: HelperProcess): Promise<void> {
  const at = performance.now();
  helper.signal("SIGTERM");
  expect(await helper.failure()).toMatchObject({
    status: 143,
    code: "CANCELLED",
    details: { signal: "SIGTERM" },
  });
  expect(performance.now() - at).toBeLessThan(7000);
}

describe("SIGTERM of a save", () => {
  let before: Buffer;
  beforeEach(async () => {
    before = await goodImage();
    await writeFile(image(), before);
  });

  async function expectUntouched(): Promise<void> {
    expect(await scratch.names()).toEqual(["vm.mfd"]);
    expect(before.equals(await scratch.read("vm.mfd"))).toBe(true);
  }

  test("that listens", async () => {
    const { helper } = await listening(image());
    await terminated(helper);
    await expectUntouched();
  });

  test("to which a peer has connected that says nothing", async () => {
    const { helper, peer } = await listening(image());
    await peer.connect();
    await terminated(helper);
    await expectUntouched();
  });

  test("of which some channels are connected", async () => {
    const { helper, peer } = await listening(image(), ["--channels", "4"]);
    await peer.playWithoutEnd(tinyMigration(4).slice(0, 3));
    await helper.waitEvent("channel", ({ channel }) => channel === 1);
    await terminated(helper);
    await expectUntouched();
  });

  test("whose data flows", async () => {
    const { helper, peer } = await listening(image(), ["--rate", "1M"]);
    await peer.play(largeMigration(2, 16 * MIB));
    await helper.waitEvent("progress", ({ bytes }) => Number(bytes) > 0);
    await terminated(helper);
    await expectUntouched();
  });

  test("that waits for the manager's word", async () => {
    const { helper, peer } = await listening(image(), ["--hold"]);
    await peer.play(tinyMigration());
    await helper.waitEvent("drained");
    await terminated(helper);
    await expectUntouched();
  });

  test.each([0, 1, 2, 3, 5, 8, 13, 21, 34, 55])(
    "that seals, %i ms after commit: all or nothing",
    async (ms) => {
      const { helper, peer } = await listening(image(), ["--hold"]);
      await peer.play(largeMigration(2, 4 * MIB));
      await helper.waitEvent("drained");
      helper.say("commit");
      await sleep(ms);
      helper.signal("SIGTERM");
      const status = await helper.exit();
      const last = helper.events.at(-1)?.event;
      if (status === 143) {
        expect(last).toBe("failed");
        await expectUntouched();
      } else {
        expect({ status, last }).toEqual({ status: 0, last: "completed" });
        expect(await scratch.names()).toEqual(["vm.mfd"]);
        expect(before.equals(await scratch.read("vm.mfd"))).toBe(false);
        await verify({ image: image(), workers: 1 });
      }
    },
  );
});

describe("SIGTERM of a restore", () => {
  const destinations: RecordingDestination[] = [];
  let channels: readonly ChannelContent[];
  beforeEach(async () => {
    channels = noiseChannels(seededRandom(), { multifdChannels: 4, barriers: 3, epochBytes: MIB });
    await writeFile(image(), buildImage(channels));
  });
  afterEach(() => Promise.all(destinations.splice(0).map((destination) => destination.close())));

  async function destination(behaviour: Behaviour = {}): Promise<RecordingDestination> {
    const opened = await RecordingDestination.listen(scratch.file("in"), channels, behaviour);
    destinations.push(opened);
    return opened;
  }

  const restoring = (...options: readonly string[]): HelperProcess =>
    start(["restore", image(), "--json", "--connect", `unix:${scratch.file("in")}`, ...options]);

  test.each([1, 2, 5])("that checks the whole image first, at read %i of it", async (nth) => {
    const { peers } = await destination();
    const fault = withFault({ thread: "worker", call: "read", nth, when: "before", act: "terminate" });
    const args = ["restore", image(), "--json", "--connect", `unix:${scratch.file("in")}`];
    const helper = start([...args, "--verify", "first", "--workers", "1"], fault);
    expect(await helper.failure()).toMatchObject({
      status: 143,
      code: "CANCELLED",
      details: { signal: "SIGTERM" },
    });
    expect(peers).toEqual([]);
  });

  test("of which some channels are connected, and the others wait to be let in", async () => {
    // Room for two: the destination, as a QEMU that expects fewer channels, accepts no more.
    rawListener(scratch.file("in"), 1);
    const helper = restoring();
    await helper.waitEvent("channel", ({ channel }) => channel === 0);
    expect(helper.events.filter(({ event }) => event === "channel")).toHaveLength(2);
    await terminated(helper);
  });

  test("whose data flows", async () => {
    const { peers } = await destination();
    const helper = restoring("--rate", "1M");
    await helper.waitEvent("progress");
    await terminated(helper);
    expect(peers).toHaveLength(5);
    expect(destinations[0]?.firstWrong).toBeNull();
  });

  test("whose destination has stopped reading", async () => {
    await destination({ deaf: true });
    const helper = restoring();
    await helper.waitEvent("channel", ({ channel }) => channel === 3);
    await sleep(500);
    await terminated(helper);
  });

  test("that waits for main's last bytes to be read", async () => {
    await destination({ holds: { peer: 0, ms: 20_000, next: "close" } });
    const helper = restoring();
    await helper.waitEvent("progress");
    await terminated(helper);
  });
});
