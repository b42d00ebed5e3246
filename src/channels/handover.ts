import fs from "node:fs";
import type net from "node:net";
import { MultifdError } from "../errors.ts";
import { duplicate, hasHungUp, shutdownConnection, unsentBytes } from "../io/libc.ts";
import { socketDescriptor } from "../io/socket-descriptor.ts";

/** What to do about EMFILE. */
export const RAISE_LIMIT = "every channel takes two descriptors: raise the limit of open files (ulimit -n)";

/**
 * A connection that main accepted or made and that a worker drains or feeds.
 *
 * Two descriptors of it exist, each with exactly one owner: `workerFd` belongs to main until the worker
 * says "taken", then to the worker; the kill switch always belongs to main. Passing one number to two
 * owners would let the slower one close whatever file has got that number meanwhile.
 */
export class Connection {
  readonly workerFd: number;
  readonly #killFd: number;
  #open = true;

  private constructor(workerFd: number, killFd: number) {
    this.workerFd = workerFd;
    this.#killFd = killFd;
  }

  /** Takes a connected, paused socket away from the event loop: the socket object is dead afterwards. */
  static detach(socket: net.Socket): Connection {
    try {
      const fd = descriptorOf(socket);
      const workerFd = duplicate(fd);
      return new Connection(workerFd, duplicateOrClose(fd, workerFd));
    } finally {
      // Closes this number only: the connection lives on in its duplicates.
      socket.destroy();
    }
  }

  /** Ends the connection for everyone; whoever waits on it wakes up. */
  kill(): void {
    if (this.#open) shutdownConnection(this.#killFd);
  }

  /** What the peer has not read yet, as the kernel counts it (buffers included); 0 once closed. */
  get outstanding(): number {
    return this.#open ? unsentBytes(this.#killFd) : 0;
  }

  /** Whether the peer sends nothing any more, which also shows while nobody reads; true once closed. */
  get hungUp(): boolean {
    return !this.#open || hasHungUp(this.#killFd);
  }

  /**
   * Closes main's descriptors.
   * @param taken whether a worker owns `workerFd` by now
   */
  close(taken: boolean): void {
    if (!this.#open) return;
    this.#open = false;
    fs.closeSync(this.#killFd);
    if (!taken) fs.closeSync(this.workerFd);
  }
}

/** A second duplicate; the first one is closed when there is none to be had (EMFILE). */
function duplicateOrClose(fd: number, first: number): number {
  try {
    return duplicate(fd);
  } catch (error) {
    fs.closeSync(first);
    throw error;
  }
}

/** The number of a socket that the event loop owns. Throws INTERNAL, and ends the socket, where there is none. */
export function descriptorOf(socket: net.Socket): number {
  const fd = socketDescriptor(socket);
  if (fd !== null) return fd;
  socket.destroy();
  throw new MultifdError(
    "INTERNAL",
    "a connection has no descriptor: it was closed before it could be handed over",
  );
}
