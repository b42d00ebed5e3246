import type { Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { MultifdError } from "../errors.ts";
import { type SystemError, sendWithDescriptor } from "../io/libc.ts";
import { socketDescriptor } from "../io/socket-descriptor.ts";

const RETRY_MS = 5;

export interface Parcel {
  readonly bytes: Buffer;
  /** A descriptor to go along. */
  readonly fd?: number | undefined;
  /** Asked until the first byte has left: false calls the sending off. */
  wanted(): boolean;
  /** Called when the first byte leaves: from then on the peer may act on it. */
  begun(): void;
}

/**
 * Sends over one socket, one parcel after the other, so that Node's queue of writes and our own sendmsg(2) never overtake
 * each other. That the connection is lost its owner learns from the socket, not from here.
 */
export class Sender {
  readonly #socket: Socket;
  #last: Promise<unknown> = Promise.resolve();

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Resolves with true when all bytes are with the kernel, with false when called off. Rejects with QEMU_FAILED. */
  send(parcel: Parcel): Promise<boolean> {
    const sent = this.#last.then(() => this.#sendNow(parcel));
    this.#last = sent.catch(() => {});
    return sent;
  }

  async #sendNow({ bytes, fd, wanted, begun }: Parcel): Promise<boolean> {
    if (!wanted()) return false;
    let gone = 0;
    while (fd !== undefined && gone === 0) {
      gone = this.#trySend(bytes, fd);
      if (gone > 0) break;
      await sleep(RETRY_MS);
      if (!wanted()) return false;
    }
    begun();
    if (gone < bytes.length) await this.#write(bytes.subarray(gone));
    return true;
  }

  /** How many bytes went, with the descriptor; 0: no room now. */
  #trySend(bytes: Buffer, fd: number): number {
    const socketFd = socketDescriptor(this.#socket);
    if (socketFd === null) return bytes.length; // lost: nobody waits for these bytes
    try {
      return sendWithDescriptor(socketFd, bytes, fd);
    } catch (error) {
      const { code } = error as SystemError;
      if (code === "EAGAIN" || code === "EWOULDBLOCK") return 0;
      if (code === "EPIPE" || code === "ECONNRESET") return bytes.length;
      const message = `cannot pass descriptor ${fd} to QEMU: sendmsg says ${code}`;
      throw new MultifdError("QEMU_FAILED", message, { fd, errno: code }, error);
    }
  }

  #write(bytes: Buffer): Promise<void> {
    return new Promise((resolve) => this.#socket.write(bytes, () => resolve()));
  }
}
