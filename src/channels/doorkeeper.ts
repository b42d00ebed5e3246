import { peerCredentials } from "../io/libc.ts";

const ROOT = 0;

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
  #refused = 0;

  constructor(allowUids: readonly number[], log: Warnings) {
    this.#admitted = admittedUsers(allowUids);
    this.#log = log;
  }

  /** How many connections were turned away. */
  get refused(): number {
    return this.#refused;
  }

  /** Whether the peer of a connected socket may stay. */
  admits(fd: number): boolean {
    const peer = peerCredentials(fd);
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
    return false;
  }
}
