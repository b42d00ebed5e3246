import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { MultifdError } from "../errors.ts";
import { hasCode } from "../io/file-io.ts";
import { hasPendingConnection } from "../io/libc.ts";
import { type Address, formatAddress, isLoopback } from "./address.ts";
import { Connection } from "./handover.ts";

/** 1 main + 255 channels may connect before the first accept; 7.2 breaks for good when one is refused. */
const BACKLOG = 512;
const OWNER_ONLY = 0o600;

export interface ListenOptions {
  readonly allowRemote: boolean;
  readonly onConnection: (connection: Connection) => void;
  readonly onError: (error: MultifdError) => void;
}

/** The migration socket. Connections succeed from the moment `open` resolves. */
export class Listener {
  /** As given; a tcp port 0 is replaced by the one taken. */
  readonly address: string;
  readonly #server: net.Server;

  private constructor(server: net.Server, address: string) {
    this.#server = server;
    this.address = address;
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
    await listen(server, address);
    server.on("error", (error) => options.onError(listenError(address, error)));
    return new Listener(server, boundAddress(server, address));
  }

  /** Accepts everything that is in the backlog by now. */
  async drainBacklog(): Promise<void> {
    const fd = (this.#server as unknown as { _handle?: { fd?: number } })._handle?.fd;
    // Each turn of the event loop accepts what is there.
    while (fd !== undefined && fd >= 0 && this.#server.listening && hasPendingConnection(fd)) {
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Stops listening and removes a unix socket's file. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
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
  if (address.kind === "fd") return "fd:N must be a listening socket that this process inherited";
  if (address.kind === "unix" && !fs.existsSync(path.dirname(address.path)))
    return "its directory does not exist";
  if (errno !== "EADDRINUSE") return "check the address and the permissions";
  if (address.kind === "unix" && !isSocket(address.path)) {
    return "what stands there is not a socket; choose another path";
  }
  return "somebody listens there already; choose another address";
}
