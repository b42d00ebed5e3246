import { Buffer } from "node:buffer";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { runRestore } from "../../src/control/restore-run.ts";
import { blocks } from "../../src/formats/image/blocks.ts";
import { restore } from "../../src/index.ts";
import { readChannels } from "../support/built-image.ts";
import { useCli } from "../support/cli-run.ts";
import { type Incoming, type IncomingOptions, startIncoming } from "../support/incoming.ts";
import { Lab } from "../support/lab.ts";
import { saveLiveGuest } from "../support/live-image.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { useVms } from "../support/vms.ts";
import type { Death } from "../support/workers/dying-feed.ts";

const MIB = 2 ** 20;
const RAM = 256 * MIB;
/** About how long a restore is stretched to. */
const STRETCHED_S = 0.8;
const DYING_FEED = { url: new URL("../support/workers/dying-feed.js", import.meta.url), name: "feed" };

describeEachQemu("a restore given up half-way ends QEMU cleanly", (binary) => {
  const vms = useVms();
  const cli = useCli();
  let lab: Lab;

  beforeAll(async () => {
    lab = await Lab.open();
    for (const channels of [0, 4, 16]) {
      const source = await lab.source({ binary, ramBytes: RAM });
      await lab.save(source, { channels }, { image: lab.file(`${channels}`) });
      await source.vm.quit();
    }
  });
  afterAll(() => lab.close());

  const incoming = (channels: number, options: Partial<IncomingOptions> = {}): Promise<Incoming> =>
    startIncoming(vms, binary, { channels }, { ramBytes: RAM, ...options });

  async function rateOf(image: string): Promise<number> {
    const { image: opened } = await readChannels(image);
    const bytes = opened.index.channels.reduce((sum, { length }) => sum + length, 0);
    return Math.ceil(bytes / STRETCHED_S);
  }

  /** Ends the helper with a signal at a random moment of the restore; answers how it ended. */
  async function signalled(
    channels: number,
    signal: "SIGTERM" | "SIGKILL",
    image: string = lab.file(`${channels}`),
    options: Partial<IncomingOptions> = {},
  ): Promise<{ guest: Incoming; hint: string }> {
    const random = seededRandom();
    const waitMs = Math.round(random.fraction() * STRETCHED_S * 900);
    const hint = `${signal} after ${waitMs} ms, TEST_SEED=${random.seed}`;
    const [guest, rate] = await Promise.all([incoming(channels, options), rateOf(image)]);
    const run = cli(["restore", image, "--connect", guest.address, "--rate", `${rate}`]);
    const last = channels === 0 ? "main" : channels - 1;
    await run.until(({ event, channel }) => event === "channel" && channel === last);
    await sleep(waitMs);
    await guest.monitor.alive();
    run.kill(signal);
    const { status, signal: by, events } = await run.finished;
    if (signal === "SIGKILL") expect(by, hint).toBe("SIGKILL");
    else {
      expect(status, hint).toBe(143);
      expect(events.at(-1), hint).toMatchObject({ event: "failed", code: "CANCELLED" });
    }
    return { guest, hint };
  }

  const points = [1, 2, 3, 4, 5];
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    describe(`when ${signal} ends the helper`, () => {
      for (const [channels, times] of [
        [4, points],
        [16, [1]],
        [0, [1]],
      ] as const) {
        test.each(times)(`${channels} channels, random point %i`, async () => {
          const { guest, hint } = await signalled(channels, signal);
          await guest.monitor.expectCleanEnd(hint);
        });
      }
    });
  }

  describe("when a block in the middle of a channel is damaged", () => {
    for (const [channels, times] of [
      [4, points],
      [16, [1]],
      [0, [1]],
    ] as const) {
      test.each(times)(`${channels} channels, random block %i`, async () => {
        const image = lab.file(`${channels}`);
        const random = seededRandom();
        const { image: opened } = await readChannels(image);
        // Not the first block of its channel: that one is checked before connecting.
        const places = opened.index.channels.flatMap((record) => [...blocks(record)].slice(1));
        const { offset, length } = random.pick(places);
        const hint = `block at ${offset}, TEST_SEED=${random.seed}`;
        const guest = await incoming(channels);
        const file = await open(image, "r+");
        const at = offset + random.integer(length);
        const { buffer: old } = await file.read(Buffer.alloc(1), 0, 1, at);
        await file.write(Buffer.from([old.readUInt8(0) ^ 1]), 0, 1, at);
        try {
          const rate = await rateOf(lab.file("0"));
          const run = restore({ image, connect: guest.address, rate });
          await expect(run, hint).rejects.toMatchObject({ code: "IMAGE_DAMAGED", exitStatus: 4 });
        } finally {
          await file.write(old, 0, 1, at);
          await file.close();
        }
        await guest.monitor.expectCleanEnd(hint);
      });
    }
  });

  describe("when a worker dies", () => {
    for (const [channels, times] of [
      [4, points],
      [16, [1]],
      [0, [1]],
    ] as const) {
      test.each(times)(`${channels} channels, random block %i`, async () => {
        const image = lab.file(`${channels}`);
        const random = seededRandom();
        const { image: opened } = await readChannels(image);
        const long = opened.index.channels.filter((record) => record.length > 4 * MIB);
        const record = random.pick(long);
        const connection = opened.index.channels.indexOf(record);
        const position = random.integer(record.length - MIB);
        const death: Death = { connection, position, how: random.pick(["exit", "throw"]) };
        const hint = `${JSON.stringify(death)}, TEST_SEED=${random.seed}`;
        const guest = await incoming(channels);
        process.env.DYING_FEED = JSON.stringify(death);
        try {
          const run = runRestore(
            { image, connect: guest.address, rate: await rateOf(image), workers: 2 },
            DYING_FEED,
          );
          await expect(run, hint).rejects.toMatchObject({ code: "WORKER_DIED", exitStatus: 1 });
        } finally {
          delete process.env.DYING_FEED;
        }
        await guest.monitor.expectCleanEnd(hint);
      });
    }
  });

  test("a guest that ran while it was saved, whose stream has many barriers", async () => {
    const image = lab.file("live");
    await saveLiveGuest(vms, { binary, ramBytes: 64 * MIB, channels: { channels: 4 }, rounds: 4, image });
    for (const signal of ["SIGTERM", "SIGKILL", "SIGKILL"] as const) {
      // It has no disk as the saved guest had; RAM comes first, so that this is never noticed.
      const { guest, hint } = await signalled(4, signal, image, { ramBytes: 64 * MIB });
      await guest.monitor.expectCleanEnd(hint);
    }
  });

  test.each(["main", 0, 7])(
    "cancelled while connecting, behind %s: QEMU is gone or answers",
    async (last) => {
      const guest = await incoming(16);
      const abort = new AbortController();
      const started = performance.now();
      const run = restore({
        image: lab.file("16"),
        connect: guest.address,
        signal: abort.signal,
        onEvent: (event) => {
          if (event.event === "channel" && event.channel === last) abort.abort();
        },
      });
      await expect(run).rejects.toMatchObject({ code: "CANCELLED" });
      expect(performance.now() - started).toBeLessThan(2500);
      // Without all its channels QEMU does not begin to load, and so sees no cut; the manager has to end it.
      const ended = await Promise.race([guest.vm.exited, sleep(300, null)]);
      if (ended === null) await guest.monitor.alive();
      guest.monitor.stop();
    },
  );

  test("a QEMU that is stopped cannot keep the helper", async () => {
    const guest = await incoming(4);
    guest.monitor.stop();
    const image = lab.file("4");
    const run = cli(["restore", image, "--connect", guest.address, "--rate", `${await rateOf(image)}`]);
    await run.until(({ event }) => event === "progress");
    process.kill(guest.vm.pid, "SIGSTOP");
    run.kill("SIGTERM");
    const { status, elapsedMs } = await run.finished;
    expect(status).toBe(143);
    expect(elapsedMs).toBeLessThan(10_000);
  });

  if (binary.major >= 10) {
    test.each([4, 16, 0])("exit-on-error off: QEMU stays and says failed, %i channels", async (channels) => {
      const image = lab.file(`${channels}`);
      const { guest, hint } = await signalled(channels, "SIGKILL", image, { exitOnError: false });
      await guest.monitor.expectFailedStatus(hint);
      guest.monitor.stop();
    });
  }
});
