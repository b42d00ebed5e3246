import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { type CompletedEvent, save, verify } from "../../src/index.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { goodImage } from "../support/save-under-test.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();
let directories = 0;

/** Saves at the same time: one that gives up waits for what may still come. */
const LANES = 4;

type Format = "stream" | "mapped-ram";

interface Received {
  readonly saved: Promise<CompletedEvent>;
  readonly directory: string;
  readonly before: Buffer;
}

/** A save over an earlier image, in a directory of its own. */
async function receive(
  format: Format,
  streams: readonly Uint8Array[],
  listen?: string,
  play: (peer: FakePeer) => Promise<void> = (peer) => peer.play(streams),
): Promise<Received> {
  const directory = scratch.file(`${directories++}`);
  await mkdir(directory);
  const image = join(directory, "vm.mfd");
  const before = await goodImage();
  await writeFile(image, before);
  const saved = save({
    image,
    format,
    listen: listen ?? `unix:${join(directory, "s")}`,
    channels: streams.length - 1,
    workers: 1,
    onEvent: (event) => {
      if (event.event === "listening") void play(new FakePeer(event.address));
    },
  });
  saved.catch(() => undefined); // looked at later
  return { saved, directory, before };
}

/** Does this for all items, a few at a time. */
async function inLanes<T>(items: readonly T[], act: (item: T) => Promise<void>): Promise<void> {
  const rest = items.values();
  const lane = async (): Promise<void> => {
    for (const item of rest) await act(item);
  };
  await Promise.all(Array.from({ length: LANES }, lane));
}

/** Evenly spread over the stream, the first and the last byte among them. */
function cutsOf(length: number, cuts: number): number[] {
  return Array.from({ length: cuts }, (_, i) => Math.round(((length - 2) * i) / (cuts - 1)) + 1);
}

/** Just behind main's EOF byte, in front of the vmdescription. */
function eofEnd(main: Buffer): number {
  return main.lastIndexOf(Buffer.from([0x00, 0x06, 0x00, 0x00])) + 1;
}

// PROTOCOL where a cut leaves too little to say whose channel it was.
const BROKEN = /^(STREAM_INCOMPLETE|PROTOCOL)$/;
const DOUBTFUL = /^STREAM_UNDECIDED$/;

/** What is there of main ends in a footer and an EOF byte, as all of it does under suppress-vmdesc. */
function codesOf(main: Buffer, cut: number): RegExp {
  return main[cut - 6] === 0x7e && main[cut - 1] === 0x00 ? DOUBTFUL : BROKEN;
}

async function expectRefused(receiving: Promise<Received>, cut: number, codes = BROKEN): Promise<void> {
  const { saved, directory, before } = await receiving;
  const outcome = await saved.then(
    () => "published",
    (error: { exitStatus: number; code: string; message: string }) => error,
  );
  expect({ cut, outcome }).toMatchObject({
    outcome: { exitStatus: 3, code: expect.stringMatching(codes) },
  });
  expect(await readdir(directory)).toEqual(["vm.mfd"]);
  expect(before.equals(await readFile(join(directory, "vm.mfd")))).toBe(true);
}

describe.each([
  ["7.2", "stream", 16],
  ["10", "stream", 16],
  ["7.2", "mapped-ram", 6],
  ["10", "mapped-ram", 6],
] as const)("a stream of QEMU %s is never published cut, --format %s", (style, format, cuts) => {
  const streams = tinyMigration(2, { style });

  test("whole it is published, or the cuts would prove nothing", async () => {
    const { saved, directory } = await receive(format, streams);
    await saved;
    await verify({ image: join(directory, "vm.mfd"), workers: 1 });
  });

  test.each([
    ["the main channel", 0],
    ["channel 0", 1],
    ["channel 1", 2],
  ] as const)("in %s", async (_, index) => {
    await inLanes(cutsOf((streams[index] as Buffer).length, cuts), async (cut) => {
      const broken = streams.map((stream, i) => (i === index ? stream.subarray(0, cut) : stream));
      const codes = index === 0 ? codesOf(streams[0] as Buffer, cut) : BROKEN;
      await expectRefused(receive(format, broken), cut, codes);
    });
  });

  test("in all channels at once", async () => {
    const parts = Array.from({ length: cuts - 1 }, (_, i) => i + 1);
    await inLanes(parts, async (part) => {
      const broken = streams.map((stream) => stream.subarray(0, Math.floor((stream.length * part) / cuts)));
      await expectRefused(receive(format, broken), part);
    });
  });

  test("behind main's EOF byte", async () => {
    const [main = Buffer.alloc(0), ...channels] = streams;
    const cut = eofEnd(main);
    await expectRefused(receive(format, [main.subarray(0, cut), ...channels]), cut, DOUBTFUL);
  });

  test("without multifd", async () => {
    const [main = Buffer.alloc(0)] = tinyMigration(0, { style });
    await inLanes(cutsOf(main.length, cuts), async (cut) => {
      await expectRefused(receive(format, [main.subarray(0, cut)]), cut, codesOf(main, cut));
    });
  });

  test("and not when a connection is reset behind its last byte but one", async () => {
    await expectRefused(
      receive(format, streams, "tcp:127.0.0.1:0", async (peer) => {
        const sockets = [];
        for (const stream of streams) {
          const socket = await peer.connect();
          sockets.push(socket);
          socket.write(stream.subarray(0, -1));
        }
        await new Promise((resolve) => setTimeout(resolve, 100));
        for (const socket of sockets) socket.resetAndDestroy();
      }),
      -1,
    );
  });
});
