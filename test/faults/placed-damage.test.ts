import { Buffer } from "node:buffer";
import { once } from "node:events";
import { type FileHandle, open, readFile, writeFile } from "node:fs/promises";
import net from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { inspect, restore, type SaveOptions, save, verify } from "../../src/index.ts";
import { failureOf } from "../support/expect-failure.ts";
import { FakePeer, tinyMigration } from "../support/fake-peer.ts";
import { inspectMapped } from "../support/inspecting.ts";
import { seededRandom } from "../support/random.ts";
import { useScratch } from "../support/scratch.ts";
import * as wire from "../support/stream-builder.ts";

/*
 * Damage to mapped-ram images that were made from channels: verify finds it, and a restore through made-up channels ends
 * before the byte is sent. faults/mapped-damage does the same with what QEMU wrote.
 */

const PAGE = 4096;
const CHANNELS = 2;
const REFUSALS = /^(IMAGE_DAMAGED|NOT_AN_IMAGE|NOT_SEALED|UNSUPPORTED_VERSION)$/;
/** A configuration that no longer names mapped-ram makes the file a stream of QEMU's, and then one that is none. */
const FOUND =
  /^(IMAGE_DAMAGED|NOT_AN_IMAGE|NOT_SEALED|UNSUPPORTED_VERSION|STREAM_UNDECIDED|STREAM_INCOMPLETE|PROTOCOL)$/;
const scratch = useScratch();

/** Takes whatever is sent to it. */
class Sink {
  readonly chunks: Buffer[] = [];
  connections = 0;
  readonly #server = net.createServer((socket) => {
    this.connections++;
    socket.on("error", () => undefined).on("data", (chunk: Buffer) => this.chunks.push(chunk));
  });

  async listen(path: string): Promise<void> {
    await once(this.#server.listen(path), "listening");
  }

  close(): void {
    this.#server.close();
  }
}

let bytes: Buffer;
let file: FileHandle;
const image = (): string => scratch.file("vm.mr");

async function savedTo(target: Pick<SaveOptions, "image" | "offset">): Promise<void> {
  await save({
    ...target,
    format: "mapped-ram",
    listen: `unix:${scratch.file("s")}`,
    workers: 1,
    onEvent: (event) => {
      if (event.event === "listening") {
        void new FakePeer(event.address).play(tinyMigration(CHANNELS, { style: "10" }));
      }
    },
  });
}

beforeEach(async () => {
  await savedTo({ image: image() });
  bytes = await readFile(image());
  file = await open(image(), "r+");
});
afterEach(() => file.close());

/** What a restore sends before it ends. */
async function restored(): Promise<{ code: string | undefined; connections: number; sent: Buffer }> {
  const sink = new Sink();
  const address = scratch.file(`in-${performance.now()}`);
  await sink.listen(address);
  const run = restore({ image: image(), connect: `unix:${address}`, channels: CHANNELS, workers: 1 });
  const failure = await failureOf(run);
  sink.close();
  return { code: failure?.code, connections: sink.connections, sent: Buffer.concat(sink.chunks) };
}

async function flipped<T>(offset: number, work: () => Promise<T>): Promise<T> {
  await file.write(Buffer.from([(bytes[offset] as number) ^ 0x41]), 0, 1, offset);
  try {
    return await work();
  } finally {
    await file.write(bytes, offset, 1, offset);
  }
}

/** Where the parts of the image lie, by what they are. */
async function areas(): Promise<Map<string, { offset: number; length: number }[]>> {
  const { ranges, blocks } = await inspectMapped(image());
  const found = new Map<string, { offset: number; length: number }[]>();
  const add = (what: string, offset: number, length: number): void => {
    if (length > 0) found.set(what, [...(found.get(what) ?? []), { offset, length }]);
  };
  for (const { what, offset, length } of ranges) {
    if (!what.startsWith("pages of ")) add(what, offset, length);
  }
  for (const { name, pagesOffset, usedLength } of blocks) {
    // Behind the name come the used length and the block's header.
    const entry = Buffer.concat([wire.u8(name.length), Buffer.from(name)]);
    const bitmapOffset = bytes.indexOf(entry) + entry.length + 8 + 28;
    add("bitmap", bitmapOffset, Math.ceil(usedLength / PAGE / 64) * 8);
    for (let page = 0; page < usedLength / PAGE; page++) {
      const present = ((bytes[bitmapOffset + (page >> 3)] as number) >> (page & 7)) & 1;
      add(present ? "page" : "absent page", pagesOffset + page * PAGE, PAGE);
    }
  }
  return found;
}

describe("bytes behind the footer", () => {
  test.each([1, 511, PAGE - 1, PAGE, 3 * PAGE + 7])(
    "%i of them: no reader takes the file for sealed",
    async (count) => {
      await file.write(Buffer.alloc(count, 0xaa), 0, count, bytes.length);
      for (const read of [verify, inspect]) {
        expect(await failureOf(read({ image: image() }))).toMatchObject({ code: "IMAGE_DAMAGED" });
      }
      expect(await restored()).toMatchObject({ code: "IMAGE_DAMAGED", connections: 0 });
    },
  );

  test("in a file that holds the image at an offset are its owner's, as long as the footer is found", async () => {
    const target = scratch.file("container");
    await writeFile(target, Buffer.alloc(PAGE, "header of a manager "));
    const handle = await open(target, "r+");
    await savedTo({ image: `fd:${handle.fd}`, offset: PAGE });
    await handle.appendFile("trailer of a manager");
    await handle.close();
    expect(await verify({ image: target, offset: PAGE, workers: 1 })).toMatchObject({
      checked: "checksums and structure",
    });
  });
});

describe("a changed byte of an image that was made from channels", () => {
  test.each(["stream", "bitmap", "map", "metadata", "checksums", "mark", "footer"])(
    "of %s: nothing is sent, nobody is even connected to",
    async (what) => {
      const random = seededRandom();
      const ranges = (await areas()).get(what) ?? [];
      expect(ranges).not.toEqual([]);
      for (let n = 0; n < 12; n++) {
        const { offset, length } = random.pick(ranges);
        const at = offset + (n === 0 ? 0 : n === 1 ? length - 1 : random.integer(length));
        await flipped(at, async () => {
          const where = `byte ${at} of ${what}, TEST_SEED=${random.seed}`;
          expect((await failureOf(verify({ image: image(), workers: 1 })))?.code, where).toMatch(FOUND);
          const { code, connections } = await restored();
          expect({ code, connections }, where).toEqual({
            code: expect.stringMatching(REFUSALS),
            connections: 0,
          });
        });
      }
    },
  );

  test("of a page: the page is not sent", async () => {
    const random = seededRandom();
    const pages = (await areas()).get("page") ?? [];
    for (let n = 0; n < 2; n++) {
      const { offset } = random.pick(pages);
      const at = offset + random.integer(PAGE);
      await flipped(at, async () => {
        const damaged = await readFile(image());
        expect((await failureOf(verify({ image: image(), workers: 1 })))?.code).toBe("IMAGE_DAMAGED");
        const { code, sent } = await restored();
        expect(code, `byte ${at}, TEST_SEED=${random.seed}`).toBe("IMAGE_DAMAGED");
        expect(sent.includes(damaged.subarray(offset, offset + PAGE))).toBe(false);
      });
    }
  });

  test("of what nobody reads harms nothing: a page that is not present", async () => {
    const [{ offset } = { offset: 0 }] = (await areas()).get("absent page") ?? [];
    expect(offset).toBeGreaterThan(0);
    await flipped(offset + 7, async () => {
      expect(await failureOf(verify({ image: image(), workers: 1 }))).toBeNull();
    });
  });
});
