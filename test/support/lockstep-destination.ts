import { Buffer } from "node:buffer";
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
  readonly connection: Connection;
  readonly chunks: Buffer[];
  received: number;
  ended: boolean;
}

/** How far everything had come at one moment, as a reader sees it. */
interface Moment {
  readonly main: number;
  readonly channels: readonly { readonly readable: number; readonly received: number }[];
}

/**
 * A destination that is as uneven as it can be: again and again it leaves one connection, chosen at random, unread
 * until nothing comes on any other. Whatever came on main can then be held against what QEMU needs not to wait for ever:
 * when barrier k can be read, SYNC k can be read on every channel; when anything of the tail can be read, every channel
 * was read to its end.
 */
export class LockstepDestination {
  readonly address: string;
  /** Resolves when main has ended, with what each connection brought, main first. */
  readonly finished: Promise<readonly Buffer[]>;
  readonly #server: net.Server;
  readonly #connections: number;
  readonly #random: Random;
  readonly #moments: Moment[] = [];
  readonly #lines: Line[] = [];
  readonly #chunk = Buffer.alloc(CHUNK);

  private constructor(server: net.Server, path: string, connections: number, random: Random) {
    this.#server = server;
    this.#connections = connections;
    this.#random = random;
    this.address = `unix:${path}`;
    server.on("connection", (socket) => {
      if (this.#lines.length === connections) throw new Error("more connections than there are channels");
      const connection = Connection.detach(socket);
      this.#lines.push({ connection, chunks: [], received: 0, ended: false });
    });
    this.finished = this.#serve();
    this.finished.catch(() => undefined);
  }

  /** @param connections that will come, main's included */
  static async listen(path: string, connections: number, random: Random): Promise<LockstepDestination> {
    const server = net.createServer({ pauseOnConnect: true });
    server.listen({ path, backlog: 511 });
    await once(server, "listening");
    return new LockstepDestination(server, path, connections, random);
  }

  /** What came too early, given where barriers, SYNCs and the tail lie, and how long each channel is. */
  violations(truth: readonly Pick<ChannelContent, "bytes" | "marks" | "tail">[]): string[] {
    const [main, ...channels] = truth;
    const { marks, tail } = main as ChannelContent;
    const found = this.#moments.flatMap((moment) => {
      const barriers = marks.filter((start) => start < moment.main).length;
      return channels.flatMap((content, id) => {
        const { readable, received } = moment.channels[id] as Moment["channels"][number];
        const sync = barriers === 0 ? 0 : (content.marks[barriers - 1] ?? Number.POSITIVE_INFINITY);
        return [
          ...(readable < sync ? [`barrier ${barriers} before its SYNC on channel ${id}`] : []),
          ...(tail !== null && moment.main > tail && received < content.bytes.length
            ? [`the tail before the end of channel ${id}`]
            : []),
        ];
      });
    });
    return [...new Set(found)];
  }

  async close(): Promise<void> {
    for (const { connection } of this.#lines) connection.close(false);
    this.#server.close();
    await once(this.#server, "close");
  }

  async #serve(): Promise<readonly Buffer[]> {
    while (this.#lines.length < this.#connections) await sleep(1);
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
      this.#note(visible, channels);
      if (main !== starved) moved += this.#take(main, visible - main.received);
      if (starved !== null && moved > 0) until = performance.now() + STANDSTILL_MS;
      await sleep(1);
    }
    return this.#lines.map(({ chunks }) => Buffer.concat(chunks));
  }

  #note(visible: number, channels: readonly Line[]): void {
    if (visible === this.#moments.at(-1)?.main) return;
    this.#moments.push({
      main: visible,
      channels: channels.map((channel) => {
        return { readable: channel.received + readable(channel), received: channel.received };
      }),
    });
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
      line.chunks.push(Buffer.from(this.#chunk.subarray(0, got)));
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
