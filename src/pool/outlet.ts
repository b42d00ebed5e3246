import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { unsentBytes } from "../io/libc.ts";

const DRAIN_POLL_MS = 2;

/** A connection to the destination, with an eye on whether the other end is still there. */
export class Outlet {
  readonly #fd: number;
  readonly #socket: net.Socket;
  readonly #mayClose: () => boolean;
  readonly #lost: Promise<never>;
  readonly #ended: Promise<void>;
  #sent = 0;

  /**
   * @param fd owned by the outlet from here on
   * @param mayClose whether the peer has all it needs, so that its closing is no loss
   */
  constructor(fd: number, mayClose: () => boolean) {
    this.#fd = fd;
    this.#mayClose = mayClose;
    this.#socket = new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
    let lose: (error: MultifdError) => void = () => undefined;
    let end: () => void = () => undefined;
    this.#lost = new Promise<never>((_, reject) => {
      lose = reject;
    });
    this.#ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    // Looked at only while something is awaited on this connection.
    this.#lost.catch(() => undefined);
    this.#socket.on("error", (error) => {
      lose(this.#closedEarly(error.message, error));
      end();
    });
    this.#socket.on("end", () => {
      if (!this.#mayClose()) lose(this.#closedEarly("end of file"));
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

  /** Waits for something, but no longer than the peer is there. */
  unlessLost<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#lost]);
  }

  /** Waits until the peer has read everything (over tcp: until its kernel has). */
  async delivered(): Promise<void> {
    while (!this.#socket.destroyed && unsentBytes(this.#fd) > 0) await this.unlessLost(sleep(DRAIN_POLL_MS));
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

  #closedEarly(why: string, cause?: unknown): MultifdError {
    const text = `the destination closed the connection after about ${this.#sent} bytes (${why}): see QEMU's own messages for the reason`;
    return new MultifdError("DESTINATION_CLOSED", text, { offset: this.#sent }, cause);
  }
}
