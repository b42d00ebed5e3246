import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { setSendBuffer, unsentBytes } from "../io/libc.ts";

const DRAIN_POLL_MS = 2;
/** Twice of what a socket has by default, and the kernel doubles it: fewer changes between us and the peer's thread. */
const SEND_BUFFER = 256 * 1024;

/** A connection to the destination, with an eye on whether the other end is still there. */
export class Outlet {
  readonly #fd: number;
  readonly #socket: net.Socket;
  readonly #mayClose: () => boolean;
  readonly #ended: Promise<void>;
  /** Why the peer is gone; null while it is there. */
  #lost: MultifdError | null = null;
  /** Whoever waits for something now: told when the peer goes. */
  readonly #waiting = new Set<(lost: MultifdError) => void>();
  #sent = 0;

  /**
   * @param fd owned by the outlet from here on
   * @param mayClose whether the peer has all it needs, so that its closing is no loss
   */
  constructor(fd: number, mayClose: () => boolean) {
    this.#fd = fd;
    setSendBuffer(fd, SEND_BUFFER);
    this.#mayClose = mayClose;
    this.#socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    let end: () => void = () => undefined;
    this.#ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#socket.on("error", (error) => {
      this.#lose(this.#closedEarly(error.message, error));
      end();
    });
    this.#socket.on("end", () => {
      if (!this.#mayClose()) this.#lose(this.#closedEarly("end of file"));
      end();
    });
    // Nothing comes back without a return path; reading is how the peer's closing is noticed.
    this.#socket.resume();
  }

  /**
   * Sends the parts in one go, none of them copied. Resolves when the kernel has taken all; the memory is free again then.
   * @param position in the channel, for the error's text
   */
  async send(parts: readonly Uint8Array[], position: number): Promise<void> {
    this.#sent = position;
    const written = new Promise<void>((resolve, reject) => {
      const taken = (error: Error | null | undefined): void =>
        error ? reject(this.#closedEarly(error.message, error)) : resolve();
      this.#socket.cork();
      for (const [number, part] of parts.entries()) {
        if (number === parts.length - 1) this.#socket.write(part, taken);
        else this.#socket.write(part);
      }
      this.#socket.uncork();
    });
    await this.unlessLost(written);
    this.#sent = parts.reduce((sum, { byteLength }) => sum + byteLength, position);
  }

  /**
   * Waits for something, but no longer than the peer is there. No race of two promises: one that never settles keeps all that
   * was ever raced with it, some hundred bytes for each block of a restore.
   */
  unlessLost<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject);
      const settle = (then: () => void): void => {
        this.#waiting.delete(reject);
        then();
      };
      work.then(
        (value) => settle(() => resolve(value)),
        (error: unknown) => settle(() => reject(error)),
      );
      if (this.#lost !== null) reject(this.#lost);
    });
  }

  /**
   * Waits until the peer has read everything (over tcp: until its kernel has), or all is given up: a connection that we cut
   * ourselves keeps what the peer has not read.
   */
  async delivered(givenUp: () => boolean): Promise<void> {
    while (!this.#socket.destroyed && !givenUp() && unsentBytes(this.#fd) > 0)
      await this.unlessLost(sleep(DRAIN_POLL_MS));
    // A peer that closed with bytes unread leaves an empty queue and an error; let the error come in.
    await this.unlessLost(sleep(DRAIN_POLL_MS));
  }

  /** Waits for the end of the connection, whoever ends it. */
  async ended(): Promise<void> {
    await this.#ended;
  }

  /** Closes this descriptor; the connection itself lives as long as main's kill switch. */
  close(): void {
    this.#socket.destroy();
  }

  #lose(error: MultifdError): void {
    this.#lost ??= error;
    for (const lose of this.#waiting) lose(this.#lost);
    this.#waiting.clear();
  }

  #closedEarly(why: string, cause?: unknown): MultifdError {
    const text = `the destination closed the connection after about ${this.#sent} bytes (${why}): see QEMU's own messages for the reason`;
    return new MultifdError("DESTINATION_CLOSED", text, { offset: this.#sent }, cause);
  }
}
