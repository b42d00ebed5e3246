import { Buffer } from "node:buffer";
import net from "node:net";
import { type ErrorDetails, MultifdError } from "../../errors.ts";
import { setSendBuffer } from "../../io/libc.ts";

/**
 * What may wait in the kernel: a page that the guest waits for goes behind it. Half of it would slow the background down,
 * twice as much makes faults longer.
 */
const SEND_BUFFER_BYTES: number = 64 * 1024;
const READ_BYTES: number = 64 * 1024;

/** The connection to a destination in postcopy: pages go out, requests come in. */
export class PageLink {
  readonly #socket: net.Socket;
  readonly #onChange: () => void;
  #failure: MultifdError | null = null;
  #ended = false;

  /**
   * @param fd owned by the link from here on
   * @param onBytes takes what came; what it throws is the link's failure
   * @param onChange called when the link has failed or ended
   */
  constructor(fd: number, onBytes: (bytes: Uint8Array) => void, onChange: () => void) {
    setSendBuffer(fd, SEND_BUFFER_BYTES);
    this.#onChange = onChange;
    const memory = Buffer.alloc(READ_BYTES);
    const callback = (count: number): boolean => {
      try {
        onBytes(memory.subarray(0, count));
      } catch (error) {
        this.fail(error);
      }
      return this.#failure === null;
    };
    // `onread` together with `fd` is documented; only the type declarations lack it.
    const options = {
      fd,
      readable: true,
      writable: true,
      allowHalfOpen: true,
      onread: { buffer: memory, callback },
    };
    this.#socket = new net.Socket(options as net.SocketConstructorOpts);
    this.#socket.on("error", (error) => this.fail(closedEarly(error.message, {}, error)));
    this.#socket.on("end", () => this.#end());
    this.#socket.on("close", () => this.#end());
  }

  /** Why nothing can be sent any more. */
  get failure(): MultifdError | null {
    return this.#failure;
  }

  /** The destination sends nothing any more. */
  get ended(): boolean {
    return this.#ended;
  }

  fail(error: unknown): void {
    const typed =
      error instanceof MultifdError ? error : new MultifdError("INTERNAL", String(error), {}, error);
    this.#failure ??= typed;
    this.#onChange();
  }

  /**
   * Sends the parts in one go, none of them copied. Resolves when the kernel has taken them all, so that their memory is free,
   * and rejects with the link's failure, behind which nothing is sent: least of all the word that all has come.
   */
  send(parts: readonly Uint8Array[]): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      const done = (error?: Error | null): void => {
        if (error) {
          this.fail(closedEarly(error.message, {}, error));
          reject(this.#failure);
        } else resolve();
      };
      this.#socket.cork();
      for (const [number, part] of parts.entries()) {
        if (number === parts.length - 1) this.#socket.write(part, done);
        else this.#socket.write(part);
      }
      this.#socket.uncork();
    });
  }

  /** Closes this descriptor; main's kill switch may keep the connection open. */
  close(): void {
    this.#socket.destroy();
  }

  #end(): void {
    this.#ended = true;
    this.#onChange();
  }
}

/** What a destination that is gone is called. */
export function closedEarly(why: string, details: ErrorDetails, cause?: unknown): MultifdError {
  const text = `the destination closed the connection before all of its RAM was there (${why}): see QEMU's own messages for the reason`;
  return new MultifdError("DESTINATION_CLOSED", text, details, cause);
}
