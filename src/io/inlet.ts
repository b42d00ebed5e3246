import net from "node:net";
import { MultifdError } from "../errors.ts";

/**
 * A connection that is read straight into memory of our choice, without stream machinery or allocation.
 *
 * Node asks `space` for the next buffer right after each `accept`, also when that answered false (pause), and never
 * again before it goes on: so whoever pauses must have installed the memory for the next read already.
 */
export class Inlet {
  /** The peer's end of file; rejects when the connection breaks or anybody calls `fail`. */
  readonly ended: Promise<void>;
  readonly #socket: net.Socket;
  #reject!: (error: unknown) => void;
  #received = 0;

  /** @param fd owned by the inlet from here on */
  constructor(fd: number, space: () => Uint8Array, accept: (bytes: number) => boolean) {
    const callback = (bytes: number): boolean => {
      this.#received += bytes;
      try {
        return accept(bytes);
      } catch (error) {
        this.fail(error);
        return false;
      }
    };
    // `onread` together with `fd` is documented; only the type declarations lack it.
    const options = { fd, readable: true, writable: false, onread: { buffer: space, callback } };
    const socket = new net.Socket(options as net.SocketConstructorOpts);
    this.#socket = socket;
    this.ended = new Promise((resolve, reject) => {
      this.#reject = reject;
      socket.on("end", resolve);
      socket.on("close", () => resolve());
      socket.on("error", (error) => this.fail(connectionLost(error, this.#received)));
    });
  }

  /** Reads on after `accept` answered false. */
  resume(): void {
    this.#socket.resume();
  }

  /** Gives the connection up. */
  fail(error: unknown): void {
    this.#reject(error);
    this.#socket.destroy();
  }
}

function connectionLost(error: Error, offset: number): MultifdError {
  const text = `the connection broke after ${offset} bytes: ${error.message}`;
  return new MultifdError("STREAM_INCOMPLETE", text, { offset }, error);
}
