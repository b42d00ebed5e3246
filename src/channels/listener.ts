import fs from "node:fs";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { hasCode } from "../io/file-io.ts";
import { duplicate, hasPendingConnection } from "../io/libc.ts";
import { type Address, formatAddress, isLoopback } from "./address.ts";
import { Connection } from "./handover.ts";

/** 1 main + 255 channels may connect before the first accept; 7.2 breaks for good when one is refused. */
const BACKLOG = 512;
const OWNER_ONLY = 0o600;
const PENDING_POLL_MS = 10;
/** QEMU connects all channels within a few milliseconds of each other. */
const GATHER_MS = 100;

type InheritedSocket = Extract<Address, { kind: "fd" }>;

export interface ListenOptions {
  readonly allowRemote: boolean;
  /** Closes the connections that wait already: on a socket of a manager's they are of a migration that failed. */
  readonly discardBacklog: boolean;
  readonly onConnection: (connection: Connection) => void;
  readonly onError: (error: MultifdError) => void;
}

/** The migration socket. Connections succeed from the moment `open` resolves. */
export class Listener {
  /** As given; a tcp port 0 is replaced by the one taken. */
  readonly address: string;
  readonly #server: net.Server;
  /** A manager's socket: until accepting has begun. */
  #gathering: Promise<void> | null = null;
  #closed = false;

  private constructor(server: net.Server, address: string) {
    this.address = address;
    this.#server = server;
  }

  /** Throws LISTEN_FAILED, or USAGE for a tcp address that needs allowRemote. */
  static async open(address: Address, options: ListenOptions): Promise<Listener> {
    if (address.kind === "tcp" && !isLoopback(address.host) && !options.allowRemote) {
      throw new MultifdError(
        "USAGE",
        `${formatAddress(address)} is not a loopback address, and migration data is neither authenticated nor encrypted: use unix:PATH, or --allow-remote if the network is trusted`,
      );
    }
    const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true });
    server.on("connection", (socket) => {
      try {
        options.onConnection(Connection.detach(socket));
      } catch (error) {
        options.onError(listenError(address, error));
      }
    });
    if (address.kind === "fd") {
      await prepareInherited(address, options.discardBacklog);
      const listener = new Listener(server, formatAddress(address));
      listener.#gathering = listener.#gather(address).catch(options.onError);
      return listener;
    }
    await listen(server, address);
    server.on("error", (error) => options.onError(listenError(address, error)));
    return new Listener(server, boundAddress(server, address));
  }

  /** Accepts everything that is in the backlog by now. */
  drainBacklog(): Promise<void> {
    return drainBacklog(this.#server);
  }

  /** Stops listening and removes a unix socket's file. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#gathering;
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /**
   * Accepts on a manager's socket only when QEMU has had the time to connect all its channels. A QEMU 7.2 whose first
   * connections break while it makes the others can never migrate again ("duplicate yank instance"); as long as none is
   * accepted, they survive even a SIGKILL of ours in the manager's backlog.
   */
  async #gather(address: InheritedSocket): Promise<void> {
    while (!this.#closed && !hasPendingConnection(address.fd)) await sleep(PENDING_POLL_MS);
    await sleep(GATHER_MS);
    if (!this.#closed) await listen(this.#server, address);
  }
}

/** Makes sure that a manager's descriptor listens, and closes what waits there if asked to. */
async function prepareInherited(address: InheritedSocket, discardBacklog: boolean): Promise<void> {
  const probe = net.createServer((socket) => socket.destroy());
  try {
    // Its own number, which it closes at its end.
    await tryListen(probe, { kind: "fd", fd: duplicate(address.fd) });
  } catch (error) {
    throw listenError(address, error);
  }
  if (discardBacklog) await drainBacklog(probe);
  await new Promise((resolve) => probe.close(resolve));
}

async function drainBacklog(server: net.Server): Promise<void> {
  const fd = (server as unknown as { _handle?: { fd?: number } })._handle?.fd;
  // Each turn of the event loop accepts what is there.
  while (fd !== undefined && fd >= 0 && server.listening && hasPendingConnection(fd)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function listen(server: net.Server, address: Address): Promise<void> {
  try {
    await tryListen(server, address);
  } catch (error) {
    if (address.kind !== "unix" || !hasCode(error, "EADDRINUSE") || !(await removeStale(address.path))) {
      throw listenError(address, error);
    }
    await tryListen(server, address).catch((again: unknown) => {
      throw listenError(address, again);
    });
  }
}

function tryListen(server: net.Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
    if (address.kind === "fd") server.listen({ fd: address.fd });
    else if (address.kind === "tcp")
      server.listen({ host: address.host, port: address.port, backlog: BACKLOG });
    else listenPrivately(server, address.path);
  });
}

/** The socket is bound within this call, so that no moment exists in which others could connect. */
function listenPrivately(server: net.Server, path: string): void {
  const before = process.umask(0o777 & ~OWNER_ONLY);
  try {
    server.listen({ path, backlog: BACKLOG });
  } finally {
    process.umask(before);
  }
}

/** Removes a socket file that nobody listens on any more; false when somebody does, or when it is no socket. */
async function removeStale(path: string): Promise<boolean> {
  if (!isSocket(path)) return false;
  const refused = await new Promise<boolean>((resolve) => {
    const probe = net.connect({ path });
    probe.once("connect", () => {
      probe.destroy();
      resolve(false);
    });
    probe.once("error", (error) => resolve(hasCode(error, "ECONNREFUSED")));
  });
  if (refused) fs.rmSync(path, { force: true });
  return refused;
}

function isSocket(path: string): boolean {
  return fs.lstatSync(path, { throwIfNoEntry: false })?.isSocket() ?? false;
}

function boundAddress(server: net.Server, address: Address): string {
  const bound = server.address();
  if (address.kind !== "tcp" || bound === null || typeof bound === "string") return formatAddress(address);
  return formatAddress({ ...address, port: bound.port });
}

function listenError(address: Address, error: unknown): MultifdError {
  if (error instanceof MultifdError) return error;
  const text = error instanceof Error ? error.message : String(error);
  const errno = error instanceof Error && "code" in error ? String(error.code) : "unknown";
  return new MultifdError(
    "LISTEN_FAILED",
    `cannot listen on ${formatAddress(address)}: ${text}; ${advice(address, errno)}`,
    { address: formatAddress(address), errno },
    error,
  );
}

function advice(address: Address, errno: string): string {
  if (errno !== "EADDRINUSE") return "check the address and the directory's permissions";
  if (address.kind === "unix" && !isSocket(address.path)) {
    return "what stands there is not a socket; choose another path";
  }
  return "somebody listens there already; choose another address";
}
