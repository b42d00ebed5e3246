import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { closeOnExec, duplicate, hasPendingConnection } from "../io/libc.ts";
import { socketDescriptor } from "../io/socket-descriptor.ts";
import { type Address, formatAddress, isLoopback } from "./address.ts";
import { Doorkeeper, type Warnings } from "./doorkeeper.ts";
import { Connection, RAISE_LIMIT } from "./handover.ts";
import { placeSocket, type SocketPlace } from "./socket-place.ts";
import { clearPath } from "./stale-socket.ts";

/** 1 main + 255 channels may connect before the first accept; 7.2 breaks for good when one is refused. */
const BACKLOG = 512;
const OWNER_ONLY = 0o600;
const PENDING_POLL_MS = 10;
/** QEMU connects all channels within a few milliseconds of each other. */
const GATHER_MS = 100;

type InheritedSocket = Extract<Address, { kind: "fd" }>;

export interface ListenOptions {
  readonly allowRemote: boolean;
  /** Users, besides root and ourselves, whose processes may connect to a unix socket. */
  readonly allowUids: readonly number[];
  readonly log: Warnings;
  /** Closes the connections that wait already: on a socket of a manager's they are of a migration that failed. */
  readonly discardBacklog: boolean;
  readonly onConnection: (connection: Connection) => void;
  readonly onError: (error: MultifdError) => void;
}

/** The migration socket. Connections succeed from the moment `open` resolves. */
export class Listener {
  /** Where to connect: as given, except for a tcp port 0 and for a socket that got a directory of its own. */
  readonly address: string;
  readonly #server: net.Server;
  readonly #place: SocketPlace | null;
  readonly #doorkeeper: Doorkeeper;
  /** A manager's socket: until accepting has begun. */
  #gathering: Promise<void> | null = null;
  #closed = false;

  private constructor(
    server: net.Server,
    address: string,
    place: SocketPlace | null,
    doorkeeper: Doorkeeper,
  ) {
    this.#server = server;
    this.address = address;
    this.#place = place;
    this.#doorkeeper = doorkeeper;
  }

  /** Throws LISTEN_FAILED, or USAGE for a tcp address that needs allowRemote. */
  static async open(address: Address, options: ListenOptions): Promise<Listener> {
    if (address.kind === "tcp") checkReach(address.host, address, options);
    const doorkeeper = new Doorkeeper(options.allowUids, options.log);
    const server = net.createServer({ pauseOnConnect: true, allowHalfOpen: true });
    server.on("connection", (socket) => {
      try {
        if (doorkeeper.admits(socket)) options.onConnection(Connection.detach(socket));
      } catch (error) {
        // A socket that stays open here would keep the server from closing for ever.
        socket.destroy();
        options.onError(listenError(address, error));
      }
    });
    if (address.kind === "fd") {
      await prepareInherited(address, options);
      const listener = new Listener(server, formatAddress(address), null, doorkeeper);
      const onError = (error: unknown): void => options.onError(listenError(address, error));
      listener.#gathering = listener.#gather(address, onError).catch(onError);
      return listener;
    }
    let place: SocketPlace | null = null;
    try {
      if (address.kind === "unix") {
        place = placeSocket(address.path, options.allowUids, options.log);
        await listenAtPlace(server, address.path, place);
      } else {
        await tryListen(server, address);
        checkBound(server, address, options);
      }
    } catch (error) {
      await close(server);
      place?.remove();
      throw listenError(address, error);
    }
    server.on("error", (error) => options.onError(listenError(address, error)));
    return new Listener(server, boundAddress(server, address, place), place, doorkeeper);
  }

  /** How many connections were turned away because of who made them. */
  get refused(): number {
    return this.#doorkeeper.refused;
  }

  /** Accepts everything that is in the backlog by now. */
  drainBacklog(): Promise<void> {
    return drainBacklog(this.#server);
  }

  /** Stops listening and removes a unix socket's file. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#gathering;
    this.#doorkeeper.close();
    await close(this.#server);
    this.#place?.remove();
  }

  /**
   * Accepts on a manager's socket only when QEMU has had the time to connect all its channels. A QEMU 7.2 whose first
   * connections break while it makes the others can never migrate again ("duplicate yank instance"); as long as none is
   * accepted, they survive even a SIGKILL of ours in the manager's backlog.
   */
  async #gather(address: InheritedSocket, onError: (error: unknown) => void): Promise<void> {
    while (!this.#closed && !hasPendingConnection(address.fd)) await sleep(PENDING_POLL_MS);
    await sleep(GATHER_MS);
    if (this.#closed) return;
    await tryListen(this.#server, address);
    this.#server.on("error", onError);
  }
}

/** Makes sure that a manager's descriptor listens where it may, and closes what waits there if asked to. */
async function prepareInherited(address: InheritedSocket, options: ListenOptions): Promise<void> {
  const probe = net.createServer((socket) => socket.destroy());
  try {
    closeOnExec(address.fd);
    // Its own number, which it closes at its end.
    await tryListen(probe, { kind: "fd", fd: duplicate(address.fd) });
    checkBound(probe, address, options);
    if (options.discardBacklog) await drainBacklog(probe);
  } catch (error) {
    throw listenError(address, error);
  } finally {
    await close(probe);
  }
}

async function drainBacklog(server: net.Server): Promise<void> {
  const fd = socketDescriptor(server);
  // Each turn of the event loop accepts what is there.
  while (fd !== null && server.listening && hasPendingConnection(fd)) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function close(server: net.Server): Promise<void> {
  if (!server.listening) return;
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

/** Refuses what could be reached from elsewhere, or warns when that is wanted. */
function checkReach(host: string, address: Address, { allowRemote, log }: ListenOptions): void {
  if (isLoopback(host)) return;
  if (!allowRemote) {
    throw new MultifdError(
      "USAGE",
      `${formatAddress(address)} is not a loopback address, and migration data is neither authenticated nor encrypted: use unix:PATH, or --allow-remote if the network is trusted`,
    );
  }
  log.warn(
    { address: formatAddress(address) },
    "listening beyond this machine: anybody who reaches the port can send a VM, and whoever is in between reads it, as QEMU's stream is neither authenticated nor encrypted",
  );
}

/** An inherited tcp socket is bound wherever the manager bound it, and a name may mean anything. */
function checkBound(server: net.Server, address: Address, options: ListenOptions): void {
  const bound = server.address();
  if (bound === null || typeof bound === "string") return;
  const asked = address.kind === "tcp" && !isLoopback(address.host);
  if (!asked) checkReach(bound.address, address, options);
}

/** PATH must be free, or hold what a dead helper left; then the socket is bound, and PATH made to lead to it. */
async function listenAtPlace(server: net.Server, file: string, place: SocketPlace): Promise<void> {
  const release = await clearPath(file);
  try {
    await tryListen(server, { kind: "unix", path: place.socket });
    place.open();
  } finally {
    release();
  }
}

function tryListen(server: net.Server, address: Address): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.once("listening", () => {
      server.off("error", reject);
      resolve();
    });
    if (address.kind === "fd") {
      closeOnExec(address.fd);
      server.listen({ fd: address.fd });
    } else if (address.kind === "tcp") {
      server.listen({ host: address.host, port: address.port, backlog: BACKLOG });
    } else {
      listenPrivately(server, address.path);
    }
  });
}

/**
 * The socket is bound within this call, so that no moment exists in which others could connect. bind(2) follows no link
 * in the last step and takes no name that exists.
 */
function listenPrivately(server: net.Server, path: string): void {
  const before = process.umask(0o777 & ~OWNER_ONLY);
  try {
    server.listen({ path, backlog: BACKLOG });
  } finally {
    process.umask(before);
  }
}

function isSocket(path: string): boolean {
  try {
    return fs.statSync(path).isSocket();
  } catch {
    // A link that leads nowhere, or round.
    return false;
  }
}

function boundAddress(server: net.Server, address: Address, place: SocketPlace | null): string {
  if (place !== null) return formatAddress({ kind: "unix", path: place.socket });
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
  if (errno === "EMFILE") return RAISE_LIMIT;
  if (address.kind === "fd") return "fd:N must be a listening socket that this process inherited";
  if (address.kind === "unix" && !fs.existsSync(path.dirname(address.path)))
    return "its directory does not exist";
  if (errno !== "EADDRINUSE") return "check the address and the permissions";
  if (address.kind === "unix" && !isSocket(address.path)) {
    return "what stands there is not a socket; choose another path";
  }
  return "somebody listens there already; choose another address";
}
