import { Buffer } from "node:buffer";
import { once } from "node:events";
import net from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { expect, test } from "vitest";
import { buildRandomMigration, type RandomMigration } from "../support/random-migration.ts";
import { sendMigration } from "../support/random-migration-sender.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();
/** More in an epoch than a socket's buffers take. */
const migration = buildRandomMigration({
  ...{
    seed: 1,
    blocks: [{ name: "mem", pages: 2500 }],
    channels: 3,
    style: "10",
    zeroPages: "none",
    passes: 2,
  },
  ...{
    scattered: false,
    unsent: false,
    compression: "none",
    returnPath: true,
    validateUuid: false,
    background: false,
  },
});
/** Main, then the channels by id. */
const STEPS: readonly (readonly Buffer[])[] = [migration.steps.main, ...migration.steps.channels];

/** Accepts the migration's connections and answers them in the order of STEPS, paused behind their first 64 bytes. */
async function accepting(sent: RandomMigration): Promise<{ streams: Stream[]; sending: Promise<void> }> {
  const path = scratch.file("s");
  const server = net.createServer({ pauseOnConnect: true }).listen(path);
  await once(server, "listening");
  const sockets: net.Socket[] = [];
  const all = new Promise<void>((resolve) => {
    server.on("connection", (socket) => {
      if (sockets.push(socket) === STEPS.length) resolve();
    });
  });
  const sending = sendMigration(`unix:${path}`, sent);
  await all;
  server.close();
  const streams = await Promise.all(sockets.map((socket) => new Stream(socket).identified()));
  return { streams: streams.sort((a, b) => a.number - b.number), sending };
}

/** A connection that is read as far as somebody asks for. */
class Stream {
  readonly #chunks: AsyncIterator<Buffer>;
  #received: Buffer = Buffer.alloc(0);
  number = 0;

  constructor(socket: net.Socket) {
    this.#chunks = socket[Symbol.asyncIterator]();
  }

  get received(): Buffer {
    return this.#received;
  }

  async identified(): Promise<this> {
    await this.until(64);
    this.number = this.#received.toString("latin1", 0, 4) === "QEVM" ? 0 : 1 + this.#received.readUInt8(24);
    return this;
  }

  /** Reads until so many bytes are here, or the end. */
  async until(length: number): Promise<void> {
    const chunks: Buffer[] = [this.#received];
    for (let here = this.#received.length; here < length; ) {
      const { value, done } = await this.#chunks.next();
      if (done) break;
      chunks.push(value);
      here += value.length;
    }
    this.#received = Buffer.concat(chunks);
  }
}

/** Bytes of a stream up to and with a step. */
function upTo(steps: readonly Buffer[], step: number): number {
  return steps.slice(0, step + 1).reduce((sum, { length }) => sum + length, 0);
}

test("a reader that stops at every barrier until all are there gets every byte", async () => {
  const { streams, sending } = await accepting(migration);
  for (const step of migration.steps.main.keys()) {
    await Promise.all(streams.map((stream, n) => stream.until(upTo(STEPS[n] ?? [], step))));
  }
  await Promise.all([sending, ...streams.map((stream) => stream.until(Number.POSITIVE_INFINITY))]);
  for (const [n, stream] of streams.entries()) {
    expect(stream.received.equals(Buffer.concat(STEPS[n] ?? [])), `stream ${n}`).toBe(true);
  }
});

test("while one channel is not read, nothing behind its next SYNC comes on any", async () => {
  const step = STEPS[1]?.findIndex((bytes) => bytes.length > 2 ** 20) ?? -1;
  expect(step).toBeGreaterThan(0);
  const { streams, sending } = await accepting(migration);
  const [main, slow, ...rest] = streams as [Stream, Stream, ...Stream[]];
  const others = [main, ...rest];
  await Promise.all(others.map((stream) => stream.until(upTo(STEPS[stream.number] ?? [], step))));
  const more = others.map((stream) => stream.until(upTo(STEPS[stream.number] ?? [], step) + 1));
  for (let turn = 0; turn < 200; turn++) await nextTurn();
  for (const { number, received } of others) {
    expect(received.length).toBe(upTo(STEPS[number] ?? [], step));
  }
  await slow.until(upTo(STEPS[1] ?? [], step));
  await Promise.all(more);
  await Promise.all([sending, ...streams.map((stream) => stream.until(Number.POSITIVE_INFINITY))]);
});

test("a reader that closes a connection ends it", async () => {
  const path = scratch.file("s");
  const server = net.createServer((socket) => socket.destroy()).listen(path);
  await once(server, "listening");
  await expect(sendMigration(`unix:${path}`, migration)).rejects.toThrow();
  server.close();
});
