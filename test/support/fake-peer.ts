import type net from "node:net";
import { connected, dial } from "../../src/bench/generator/dial.ts";
import { buildMigration, type FakeMigration, type FakeMigrationOptions } from "./fake-migration.ts";
import { asUser } from "./other-user.ts";

const PAGE = 4096;

/** A QEMU that connects to a helper's socket and says whatever a test wants. */
export class FakePeer {
  readonly #address: string;
  readonly #uid: number | undefined;
  readonly #sockets: net.Socket[] = [];

  /**
   * @param address as in the event `listening`: unix:PATH or tcp:HOST:PORT
   * @param uid who it connects as, where that is somebody else than this process
   */
  constructor(address: string, uid?: number) {
    this.#address = address;
    this.#uid = uid;
  }

  /** One connection, on which nothing was said yet. Its errors are expected: helpers that give up close it. */
  async connect(): Promise<net.Socket> {
    const call = (): net.Socket => dial(this.#address);
    const socket = this.#uid === undefined ? call() : asUser(this.#uid, call);
    socket.on("error", () => undefined).resume();
    this.#sockets.push(socket);
    return await connected(socket);
  }

  /** Connections for all streams first, as QEMU does; then every byte, and the ends. */
  async play(streams: readonly Uint8Array[]): Promise<void> {
    const sockets: (readonly [net.Socket, Uint8Array])[] = [];
    for (const stream of streams) sockets.push([await this.connect(), stream]);
    for (const [socket, stream] of sockets) socket.end(stream);
  }

  /** Like `play`, but the connections stay open behind the last byte. */
  async playWithoutEnd(streams: readonly Uint8Array[]): Promise<void> {
    const sockets: net.Socket[] = [];
    // Channels come before main's first barrier, as QEMU's do.
    for (const _ of streams) sockets.push(await this.connect());
    for (const [n, socket] of sockets.entries()) socket.write(streams[n] as Uint8Array);
  }

  /** Closes whatever is still open, as a QEMU that dies does. */
  vanish(): void {
    for (const socket of this.#sockets) socket.destroy();
  }
}

/** main, then the channels by id. */
export function streamsOf(migration: FakeMigration): Buffer[] {
  return [migration.main, ...migration.channels];
}

/** A whole migration of a few dozen pages. */
export function tinyMigration(channels = 2, options: FakeMigrationOptions = {}): Buffer[] {
  return streamsOf(buildMigration({ channels, ...options }));
}

/** A whole migration of a guest of this size, almost all of it on the channels. */
export function largeMigration(channels: number, bytes: number): Buffer[] {
  return tinyMigration(channels, {
    style: "10",
    blocks: [{ name: "mem", bytes: Math.ceil(bytes / PAGE) * PAGE }],
    zeroEvery: 0,
    extraRounds: 0,
  });
}
