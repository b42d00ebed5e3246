import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import koffi from "koffi";
import { Connection } from "../../src/channels/handover.ts";
import type { ChannelContent } from "./built-image.ts";
import type { Random } from "./random.ts";

const ioctl = koffi.load(null).func("int ioctl(int fd, unsigned long request, _Out_ int *value)");
const FIONREAD = 0x541b;
const CHUNK = 256 * 1024;
/** For how long nothing may come any more before the unread connection's turn is over. */
const STANDSTILL_MS = 10;
/** For how long all are read between two such turns. */
const RELIEF_MS = 20;

interface Line {
  readonly content: ChannelContent;
  readonly connection: Connection;
  received: number;
  ended: boolean;
}

/**
 * A destination that is as uneven as it can be: again and again it leaves one connection, chosen at random, unread
 * until nothing comes on any other. Whatever comes on main is held against what QEMU needs not to wait for ever: when barrier k
 * can be read, SYNC k can be read on every channel; when anything of the tail can be read, every channel was read to
 * its end.
 */
export class LockstepDestination {
  readonly address: string;
  readonly violations: string[] = [];
  /** Resolves when main has ended, with how many bytes each connection brought, main first. */
  readonly finished: Promise<readonly number[]>;
  readonly #server: net.Server;
  readonly #truth: readonly ChannelContent[];
  readonly #random: Random;
  readonly #lines: Line[] = [];
  readonly #chunk = Buffer.alloc(CHUNK);

  private constructor(server: net.Server, path: string, truth: readonly ChannelContent[], random: Random) {
    this.#server = server;
    this.#truth = truth;
    this.#random = random;
    this.address = `unix:${path}`;
    server.on("connection", (socket) => {
      const content = truth[this.#lines.length];
      if (content === undefined) throw new Error("more connections than the image has channels");
      this.#lines.push({ content, connection: Connection.detach(socket), received: 0, ended: false });
    });
    this.finished = this.#serve();
    this.finished.catch(() => undefined);
  }

  static async listen(
    path: string,
    truth: readonly ChannelContent[],
    random: Random,
  ): Promise<LockstepDestination> {
    const server = net.createServer({ pauseOnConnect: true });
    server.listen({ path, backlog: 511 });
    await once(server, "listening");
    return new LockstepDestination(server, path, truth, random);
  }

  async close(): Promise<void> {
    for (const { connection } of this.#lines) connection.close(false);
    this.#server.close();
    await once(this.#server, "close");
  }

  async #serve(): Promise<readonly number[]> {
    while (this.#lines.length < this.#truth.length) await sleep(1);
    const [main, ...channels] = this.#lines as [Line, ...Line[]];
    let starved: Line | null = null;
    let until = 0;
    while (!main.ended) {
      if (performance.now() > until) {
        starved = starved === null ? this.#random.pick(this.#lines) : null;
        until = performance.now() + (starved === null ? RELIEF_MS : STANDSTILL_MS);
      }
      let moved = 0;
      for (const channel of channels) if (channel !== starved) moved += this.#take(channel, CHUNK);
      // Looked at main first: what the channels get meanwhile can only excuse it.
      const visible = main.received + readable(main);
      this.#judge(visible, channels);
      if (main !== starved) moved += this.#take(main, visible - main.received);
      if (starved !== null && moved > 0) until = performance.now() + STANDSTILL_MS;
      await sleep(1);
    }
    return this.#lines.map(({ received }) => received);
  }

  #judge(visible: number, channels: readonly Line[]): void {
    const { marks, tail } = this.#truth[0] as ChannelContent;
    const barriers = marks.filter((start) => start < visible).length;
    for (const [id, { content, ...channel }] of channels.entries()) {
      const sync = barriers === 0 ? 0 : (content.marks[barriers - 1] ?? Number.POSITIVE_INFINITY);
      const here = channel.received + readable(channel);
      if (here < sync) this.violations.push(`barrier ${barriers} before its SYNC on channel ${id}`);
      if (tail !== null && visible > tail && channel.received < content.bytes.length) {
        this.violations.push(`the tail before the end of channel ${id}`);
      }
    }
  }

  /** @returns how many bytes came */
  #take(line: Line, most: number): number {
    if (line.ended) return 0;
    try {
      const got = fs.readSync(
        line.connection.workerFd,
        this.#chunk,
        0,
        Math.max(1, Math.min(most, CHUNK)),
        null,
      );
      const expected = line.content.bytes.subarray(line.received, line.received + got);
      if (!this.#chunk.subarray(0, got).equals(expected))
        this.violations.push("bytes that are not the image's");
      line.received += got;
      line.ended = got === 0;
      return got;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      return 0;
    }
  }
}

function readable({ connection }: Pick<Line, "connection">): number {
  const value = [0];
  if (ioctl(connection.workerFd, FIONREAD, value) < 0) throw new Error("FIONREAD failed");
  return value[0] as number;
}
