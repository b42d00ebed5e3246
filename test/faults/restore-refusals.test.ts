import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { encodeSuperblock, writingSuperblock } from "../../src/formats/image/superblock.ts";
import { type ChannelContent, readChannels } from "../support/built-image.ts";
import { type CliResult, useCli } from "../support/cli-run.ts";
import { exampleImage } from "../support/example-image.ts";
import { RecordingDestination } from "../support/recording-destination.ts";

const UUID = "00112233-4455-6677-8899-aabbccddeeff";
const MIB = 2 ** 20;
/** coreutils has it; Node has no such call. */
const MAKE_FIFO = "mkfifo";

describe("restore refuses before it connects", () => {
  const cli = useCli();
  let directory: string;
  let good: string;
  let channels: readonly ChannelContent[];
  let destination: RecordingDestination;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "mfd-refuse-"));
    good = join(directory, "good.mfd");
    await writeFile(good, exampleImage().bytes);
    ({ channels } = await readChannels(good));
    destination = await RecordingDestination.listen(join(directory, "socket"), channels);
  });
  afterEach(async () => {
    await destination.close();
    await rm(directory, { recursive: true });
  });

  const restored = (image: string, ...options: readonly string[]): Promise<CliResult> =>
    cli(["restore", image, "--connect", destination.address, ...options], { boundMs: 15_000 }).finished;

  /** restore and verify both fail in this way, in one clear line, and nobody was connected to. */
  async function expectRefused(image: string, code: string, status: number, words: RegExp): Promise<void> {
    const verified = await cli(["verify", image], { boundMs: 15_000 }).finished;
    for (const result of [await restored(image), verified]) {
      expect(result.events.at(-1)).toMatchObject({ event: "failed", code });
      expect(result.events.at(-1)?.message).toMatch(words);
      expect(result.status).toBe(status);
      expect(result.stderr.trim().split("\n")).toHaveLength(1);
    }
    expect(destination.peers).toEqual([]);
  }

  /** The good image with a few bytes of its superblock changed, and the checksum made to match. */
  async function forged(change: (superblock: DataView) => void): Promise<string> {
    const bytes = await readFile(good);
    const view = new DataView(bytes.buffer, bytes.byteOffset, 4096);
    change(view);
    view.setUint32(4092, crc32(bytes.subarray(0, 4092)));
    const image = join(directory, "forged.mfd");
    await writeFile(image, bytes);
    return image;
  }

  test("an image that is still being written", async () => {
    const image = join(directory, "unsealed.mfd");
    const superblock = encodeSuperblock(writingSuperblock(UUID, Date.now()));
    await writeFile(image, Buffer.concat([superblock, Buffer.alloc(MIB, 0x5a)]));
    await expectRefused(image, "NOT_SEALED", 4, /never finished/);
  });

  test("what a helper that was killed in mid-save leaves behind", async () => {
    const folder = join(directory, "saves");
    await mkdir(folder);
    const listen = join(directory, "save.sock");
    const save = cli(["save", join(folder, "vm.mfd"), "--listen", `unix:${listen}`]);
    await save.until(({ event }) => event === "listening");
    const source = net.connect(listen);
    source.on("error", () => undefined);
    await once(source, "connect");
    source.write(channels[0]?.bytes.subarray(0, 60) as Buffer);
    await save.until(({ event, channel }) => event === "channel" && channel === "main");
    await partialFile(folder);
    save.kill("SIGKILL");
    await save.finished;
    source.destroy();
    const left = await readdir(folder);
    expect(left).toHaveLength(1);
    expect(left).not.toContain("vm.mfd");
    await expectRefused(join(folder, left[0] as string), "NOT_SEALED", 4, /never finished/);
  });

  /** Waits until the save has its superblock on disk. */
  async function partialFile(folder: string): Promise<void> {
    const deadline = Date.now() + 5000;
    for (;;) {
      const [name] = await readdir(folder);
      if (name !== undefined && (await readFile(join(folder, name))).includes("MFDIMAGE")) return;
      if (Date.now() > deadline) throw new Error("the save has written nothing in 5 s");
      await sleep(10);
    }
  }

  test("a foreign file", async () => {
    const image = join(directory, "foreign");
    await writeFile(image, Buffer.alloc(MIB, "something else "));
    await expectRefused(image, "NOT_AN_IMAGE", 4, /no multifd-helper image/);
  });

  test("an empty file", async () => {
    const image = join(directory, "empty");
    await writeFile(image, "");
    await expectRefused(image, "NOT_AN_IMAGE", 4, /0 bytes/);
  });

  test("a directory", () => expectRefused(directory, "TARGET_REFUSED", 5, /is a directory/));

  test("a FIFO, without waiting for a writer", async () => {
    const image = join(directory, "fifo");
    execFileSync(MAKE_FIFO, [image]);
    await expectRefused(image, "TARGET_REFUSED", 5, /is a FIFO/);
  });

  test("a file that is not there", () =>
    expectRefused(join(directory, "nothing"), "IO", 5, /there is no file/));

  test("an image of a later version", async () => {
    const image = await forged((superblock) => superblock.setUint32(8, 2));
    await expectRefused(image, "UNSUPPORTED_VERSION", 4, /newer/);
  });

  test("an image that requires a feature from the future", async () => {
    const image = await forged((superblock) => superblock.setUint32(12, 0x80));
    await expectRefused(image, "UNSUPPORTED_VERSION", 4, /newer/);
  });

  test("an image whose index lies outside of the file", async () => {
    const image = await forged((superblock) => superblock.setBigUint64(80, 2n ** 40n));
    await expectRefused(image, "IMAGE_DAMAGED", 4, /index/);
  });

  test.each([
    ["channels=4", "2"],
    ["uuid=00112233-4455-6677-8899-aabbccddee00", UUID],
    ["machine=pc-q35-7.2", "pc-q35-10.0"],
    [`channels=2,uuid=${UUID},machine=pc-q35-9.0`, "pc-q35-10.0"],
  ])("an image that is not what --expect %s says", async (expectation, found) => {
    const { events, status } = await restored(good, "--expect", expectation);
    expect(events.at(-1)).toMatchObject({ event: "failed", code: "EXPECTATION_FAILED" });
    expect(events.at(-1)?.message).toContain(found);
    expect(status).toBe(4);
    expect(destination.peers).toEqual([]);
  });

  test("--force goes on with a warning", async () => {
    const { events, status, stderr } = await restored(good, "--expect", "channels=4", "--force");
    expect(events.at(-1)).toMatchObject({ event: "completed" });
    expect(status).toBe(0);
    expect(stderr).toContain("because of --force");
    expect(destination.firstWrong).toBeNull();
  });

  test("nothing when everything is as expected, the UUID in upper case", async () => {
    const expectation = `channels=2,uuid=${UUID.toUpperCase()},machine=pc-q35-10.0`;
    const { events, status } = await restored(good, "--expect", expectation);
    expect(events.at(-1)).toMatchObject({ event: "completed" });
    expect(status).toBe(0);
    expect(destination.received).toEqual(channels.map(({ bytes }) => bytes.length));
  });
});
