import type net from "node:net";
import { peerCredentials } from "../io/libc.ts";
import { descriptorOf } from "./handover.ts";

const ROOT = 0;
/** QEMU connects all its channels within milliseconds of each other; on a busy machine some may take longer. */
const QUIET_MS = 1000;
/** A QEMU has no more channels, so that whoever comes then is none. */
const MOST_HELD = 256;

/** What of a logger the listening side uses. */
export interface Warnings {
  warn(fields: object, message: string): void;
}

/** Users whose processes may connect: root, we ourselves, and who else was allowed. */
export function admittedUsers(allowUids: readonly number[]): ReadonlySet<number> {
  return new Set([ROOT, ourUid(), ...allowUids]);
}

/** The user whose rights we have. */
export function ourUid(): number {
  // Node has it on every system but Windows.
  return (process.geteuid as () => number)();
}

/**
 * Looks at who connects to a unix socket (SO_PEERCRED): whoever gets in can forge a guest's memory. File modes say the
 * same, but of a socket that the manager made, or that several users may open, we are the only guard. Peers on tcp
 * have no credentials.
 */
export class Doorkeeper {
  readonly #admitted: ReadonlySet<number>;
  readonly #log: Warnings;
  readonly #told = new Set<number>();
  readonly #held = new Set<net.Socket>();
  #farewell: NodeJS.Timeout | undefined;
  #refused = 0;

  constructor(allowUids: readonly number[], log: Warnings) {
    this.#admitted = admittedUsers(allowUids);
    this.#log = log;
  }

  /** How many connections were turned away. */
  get refused(): number {
    return this.#refused;
  }

  /** Whether the peer of a connected, paused socket may stay. The socket of one who may not is closed soon. */
  admits(socket: net.Socket): boolean {
    const peer = peerCredentials(descriptorOf(socket));
    if (peer === null || this.#admitted.has(peer.uid)) return true;
    this.#refused++;
    // Once for each user: somebody who connects in a loop must not fill the log.
    if (!this.#told.has(peer.uid)) {
      this.#told.add(peer.uid);
      this.#log.warn(
        { uid: peer.uid, pid: peer.pid },
        `refused a connection of uid ${peer.uid}: if that is QEMU's, add --allow-uid ${peer.uid}`,
      );
    }
    this.#turnAway(socket);
    return false;
  }

  /** Closes what is still held. */
  close(): void {
    clearTimeout(this.#farewell);
    for (const socket of this.#held) socket.destroy();
    this.#held.clear();
  }

  /**
   * Closes a stranger's connection, unread, a second after the last one came. The stranger may be a QEMU whose user
   * was forgotten, and a QEMU 7.2 that loses a connection while it makes the next ones aborts, and its VM is gone
   * (util/yank.c, "Assertion `entry' failed").
   */
  #turnAway(socket: net.Socket): void {
    if (this.#held.size === MOST_HELD) {
      socket.destroy();
      return;
    }
    this.#held.add(socket.on("error", () => undefined));
    clearTimeout(this.#farewell);
    this.#farewell = setTimeout(() => this.close(), QUIET_MS);
  }
}
