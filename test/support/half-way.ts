import { Buffer } from "node:buffer";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";
import { runRestore } from "../../src/control/restore-run.ts";
import { blocks } from "../../src/formats/image/blocks.ts";
import { restore } from "../../src/index.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { readChannels } from "./built-image.ts";
import type { CliOptions, CliRun } from "./cli-run.ts";
import { type Incoming, type IncomingOptions, startIncoming } from "./incoming.ts";
import type { Lab } from "./lab.ts";
import { seededRandom } from "./random.ts";
import type { Vms } from "./vms.ts";
import type { Death } from "./workers/dying-feed.ts";

const MIB = 2 ** 20;
const RAM = 64 * MIB;
/** About how long a restore is stretched to. */
const STRETCHED_S = 0.8;
const DYING_FEED = { url: new URL("./workers/dying-feed.js", import.meta.url), name: "feed" };

/** Of each of these an image is made; 0 is without multifd. */
export type HalfWayChannels = 0 | 4 | 16;

/** Restores into a real QEMU that come to their end about half-way, at a random moment or block. */
export class HalfWay {
  readonly #binary: QemuBinary;
  readonly #lab: Lab;
  readonly #vms: Vms;
  readonly #cli: (args: readonly string[], options?: CliOptions) => CliRun;

  constructor(binary: QemuBinary, lab: Lab, vms: Vms, cli: (args: readonly string[]) => CliRun) {
    this.#binary = binary;
    this.#lab = lab;
    this.#vms = vms;
    this.#cli = cli;
  }

  /** Makes the images. */
  async prepare(): Promise<void> {
    for (const channels of [0, 4, 16] as const) {
      const source = await this.#lab.source({ binary: this.#binary, ramBytes: RAM });
      await this.#lab.save(source, { channels }, { image: this.image(channels) });
      await source.vm.quit();
    }
  }

  image(channels: HalfWayChannels): string {
    return this.#lab.file(`${channels}`);
  }

  /** A QEMU that waits for the image of so many channels. */
  incoming(channels: HalfWayChannels, options: Partial<IncomingOptions> = {}): Promise<Incoming> {
    return startIncoming(this.#vms, this.#binary, { channels }, { ramBytes: RAM, ...options });
  }

  /** The rate, in bytes per second, at which the restore of an image takes as long as it should. */
  async rateOf(image: string): Promise<number> {
    const { image: opened } = await readChannels(image);
    const bytes = opened.index.channels.reduce((sum, { length }) => sum + length, 0);
    return Math.ceil(bytes / STRETCHED_S);
  }

  /** Ends the helper with a signal at a random moment of the restore; answers what QEMU it was for. */
  async signalled(
    channels: HalfWayChannels,
    signal: "SIGTERM" | "SIGKILL",
    image: string = this.image(channels),
    options: Partial<IncomingOptions> = {},
  ): Promise<{ guest: Incoming; hint: string }> {
    const random = seededRandom();
    const waitMs = Math.round(random.fraction() * STRETCHED_S * 900);
    const hint = `${signal} after ${waitMs} ms, TEST_SEED=${random.seed}`;
    const [guest, rate] = await Promise.all([this.incoming(channels, options), this.rateOf(image)]);
    const run = this.#cli(["restore", image, "--connect", guest.address, "--rate", `${rate}`]);
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

  /** Restores an image that has one wrong bit in a random block, and mends it again. */
  async damaged(channels: HalfWayChannels): Promise<void> {
    const image = this.image(channels);
    const random = seededRandom();
    const { image: opened } = await readChannels(image);
    // Not the first block of its channel: that one is checked before connecting.
    const places = opened.index.channels.flatMap((record) => [...blocks(record)].slice(1));
    const { offset, length } = random.pick(places);
    const hint = `block at ${offset}, TEST_SEED=${random.seed}`;
    const guest = await this.incoming(channels);
    const file = await open(image, "r+");
    const at = offset + random.integer(length);
    const { buffer: old } = await file.read(Buffer.alloc(1), 0, 1, at);
    await file.write(Buffer.from([old.readUInt8(0) ^ 1]), 0, 1, at);
    try {
      const rate = await this.rateOf(this.image(0));
      const run = restore({ image, connect: guest.address, rate });
      await expect(run, hint).rejects.toMatchObject({ code: "IMAGE_DAMAGED", exitStatus: 4 });
    } finally {
      await file.write(old, 0, 1, at);
      await file.close();
    }
    await guest.monitor.expectCleanEnd(hint);
  }

  /** Restores with a worker that dies at a random block. */
  async bereft(channels: HalfWayChannels): Promise<void> {
    const image = this.image(channels);
    const random = seededRandom();
    const { image: opened } = await readChannels(image);
    const long = opened.index.channels.filter((record) => record.length > 2 * MIB);
    const record = random.pick(long);
    const connection = opened.index.channels.indexOf(record);
    const position = random.integer(record.length - MIB);
    const death: Death = { connection, position, how: random.pick(["exit", "throw"]) };
    const hint = `${JSON.stringify(death)}, TEST_SEED=${random.seed}`;
    const guest = await this.incoming(channels);
    process.env.DYING_FEED = JSON.stringify(death);
    try {
      const options = { image, connect: guest.address, rate: await this.rateOf(image), workers: 2 };
      await expect(runRestore(options, DYING_FEED), hint).rejects.toMatchObject({
        code: "WORKER_DIED",
        exitStatus: 1,
      });
    } finally {
      delete process.env.DYING_FEED;
    }
    await guest.monitor.expectCleanEnd(hint);
  }
}
