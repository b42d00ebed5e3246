import { once } from "node:events";
import net from "node:net";
import type { ChannelContent } from "./built-image.ts";

/** How a destination behaves that is not as patient as QEMU. */
export interface Behaviour {
  /** Accepts and never reads a byte. */
  readonly deaf?: boolean;
  /** Leaves one connection unread for a while once something came on it, and then reads on or closes all. */
  readonly holds?: { readonly peer: number; readonly ms: number; readonly next: "read" | "close" };
  /** Closes one connection (0 is main) after so many bytes, and with it, if asked, all others. */
  readonly closes?: { readonly peer: number; readonly after: number; readonly all?: boolean };
}

/** What came over one connection; peer 0 is main, peer i is channel i - 1. */
export interface Peer {
  received: number;
  /** Stream position of the first chunk that was not the channel's true bytes. */
  firstWrong: number | null;
  ended: boolean;
}

/**
 * A destination that compares all it is sent with the true channels. Like a loading QEMU it closes everything
 * once main has ended.
 */
export class RecordingDestination {
  readonly address: string;
  readonly peers: Peer[] = [];
  readonly #server: net.Server;
  readonly #sockets: net.Socket[] = [];

  private constructor(server: net.Server, address: string) {
    this.#server = server;
    this.address = address;
  }

  /** @param where path of a unix socket, or "tcp" for a free port of this machine */
  static async listen(
    where: string,
    truth: readonly ChannelContent[],
    behaviour: Behaviour = {},
  ): Promise<RecordingDestination> {
    const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true });
    server.listen(where === "tcp" ? { host: "127.0.0.1", port: 0 } : { path: where, backlog: 511 });
    await once(server, "listening");
    const bound = server.address();
    const address =
      typeof bound === "object" && bound !== null ? `tcp:127.0.0.1:${bound.port}` : `unix:${where}`;
    const destination = new RecordingDestination(server, address);
    server.on("connection", (socket) => destination.#accept(socket, truth, behaviour));
    return destination;
  }

  /** Every byte received so far was the true one. */
  get firstWrong(): string | null {
    const number = this.peers.findIndex((peer) => peer.firstWrong !== null);
    return number < 0 ? null : `peer ${number} from byte ${this.peers[number]?.firstWrong}`;
  }

  get received(): readonly number[] {
    return this.peers.map((peer) => peer.received);
  }

  async close(): Promise<void> {
    this.hangUp();
    this.#server.close();
    await once(this.#server, "close");
  }

  /** Closes every connection, as a destination does that dies. */
  hangUp(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #hold(socket: net.Socket, { ms, next }: NonNullable<Behaviour["holds"]>): void {
    socket.pause();
    setTimeout(() => (next === "read" ? socket.resume() : this.hangUp()), ms);
  }

  #accept(socket: net.Socket, truth: readonly ChannelContent[], behaviour: Behaviour): void {
    const number = this.#sockets.push(socket) - 1;
    const peer: Peer = { received: 0, firstWrong: null, ended: false };
    this.peers.push(peer);
    socket.on("error", () => undefined);
    if (behaviour.deaf) return;
    const expected = truth[number]?.bytes;
    socket.on("data", (chunk) => {
      const until = peer.received + chunk.length;
      if (!expected?.subarray(peer.received, until).equals(chunk)) peer.firstWrong ??= peer.received;
      peer.received = until;
      if (behaviour.holds?.peer === number && until === chunk.length) this.#hold(socket, behaviour.holds);
      const { closes } = behaviour;
      if (closes === undefined || closes.peer !== number || until < closes.after) return;
      if (closes.all) this.hangUp();
      else socket.destroy();
    });
    socket.on("end", () => {
      peer.ended = true;
      if (number === 0) this.hangUp();
    });
    socket.resume();
  }
}
