import type { Buffer } from "node:buffer";
import type net from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { FakePeer } from "./fake-peer.ts";
import { type Random, seededRandom } from "./random.ts";
import type { RandomMigration } from "./random-migration.ts";
import { shuffled } from "./random-migration-pages.ts";

/**
 * Sends a migration as QEMU does: main connects first, the channels in any order; all are written at the same time, in
 * chunks and turns of any kind, but main's barrier k only when every channel has written its SYNC k, and nothing behind
 * SYNC k before all have written theirs; the ends come when all is written. A reader may stop reading any of the
 * connections for as long as it likes.
 * Rejects when the reader closes a connection.
 * @param address as in the event `listening`: unix:PATH
 */
export async function sendMigration(address: string, { steps, shape }: RandomMigration): Promise<void> {
  const random = seededRandom(shape.seed + 1);
  const peer = new FakePeer(address);
  try {
    const main = await peer.connect();
    const channels: [net.Socket, readonly Buffer[]][] = [];
    for (const channel of shuffled(steps.channels, random)) channels.push([await peer.connect(), channel]);
    const synced = steps.main.map(() => new Countdown(channels.length));
    const writeMain = async (): Promise<void> => {
      for (const [n, bytes] of steps.main.entries()) {
        if (n > 0) await synced[n - 1]?.reached;
        await writeInChunks(main, bytes, random);
      }
    };
    const writeChannel = async ([socket, own]: (typeof channels)[number]): Promise<void> => {
      for (const [n, bytes] of own.entries()) {
        if (n > 0) await synced[n - 1]?.reached;
        await writeInChunks(socket, bytes, random);
        synced[n]?.count();
      }
    };
    await Promise.all([writeMain(), ...channels.map(writeChannel)]);
    for (const socket of shuffled([main, ...channels.map(([socket]) => socket)], random)) socket.end();
  } catch (error) {
    peer.vanish();
    throw error;
  }
}

/** Resolves when it was counted so many times. */
class Countdown {
  readonly reached: Promise<void>;
  #left: number;
  #resolve: () => void = () => undefined;

  constructor(times: number) {
    this.#left = times + 1;
    this.reached = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.count();
  }

  count(): void {
    this.#left--;
    if (this.#left === 0) this.#resolve();
  }
}

async function writeInChunks(socket: net.Socket, bytes: Buffer, random: Random): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + random.integer(random.pick([60, 4000, 200_000, 200_000]));
    await write(socket, bytes.subarray(at, at + length));
    at += length;
    if (random.integer(4) === 0) await nextTurn();
  }
}

/** Resolves when the kernel has the bytes. */
function write(socket: net.Socket, bytes: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(bytes, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}
