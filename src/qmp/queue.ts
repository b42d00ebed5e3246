import type { Socket } from "node:net";
import type { MultifdError } from "../errors.ts";
import { Sender } from "./sender.ts";

/** A command, ready to be sent, and who waits for its answer. */
export interface Command {
  readonly id: number;
  readonly what: string;
  readonly bytes: Buffer;
  readonly fd: number | undefined;
  readonly outOfBand: boolean;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/**
 * The commands on their way to one QEMU. It gets the next one when it has answered the one before, also if nobody waits
 * for that answer any more: QEMU runs them one by one anyhow, and
 * - holds eight at most and then stops reading, so that out-of-band commands would no longer reach it
 *   (QMP_REQ_QUEUE_LEN_MAX, monitor/qmp.c of 7.2 and 10.0);
 * - keeps the descriptors of the latest command only, until somebody fetches them (tcp_chr_recv, chardev/char-socket.c).
 * Out-of-band commands do not queue up.
 */
export class CommandQueue {
  /** Whether QEMU takes out-of-band commands. */
  outOfBand = false;
  readonly #sender: Sender;
  /** Those that somebody waits for, by id. */
  readonly #awaited = new Map<unknown, Command>();
  readonly #sent = new Set<Command>();
  #waiting: Command[] = [];
  #running: Command | undefined;

  constructor(socket: Socket) {
    this.#sender = new Sender(socket);
  }

  add(command: Command): void {
    this.#awaited.set(command.id, command);
    if (command.outOfBand) void this.#send(command);
    else {
      this.#waiting.push(command);
      this.#next();
    }
  }

  /** Nobody waits for it any more: it is not sent, if it was not. */
  forget(command: Command): void {
    this.#awaited.delete(command.id);
    this.#sent.delete(command);
    this.#waiting = this.#waiting.filter((other) => other !== command);
  }

  /** Calls `tell` with the command that this is the answer of, unless it is forgotten. false: such an id was never sent. */
  answered(id: unknown, tell: (command: Command) => void): boolean {
    if (typeof id !== "number") return false;
    const command = this.#awaited.get(id);
    if (command !== undefined) tell(command);
    if (this.#running?.id === id) this.#runNext();
    return true;
  }

  /** `busyWith`: the command that QEMU has not answered. */
  stateOf(command: Command): { sent: boolean; busyWith: string } {
    return { sent: this.#sent.has(command), busyWith: this.#running?.what ?? "something else" };
  }

  rejectAll(error: MultifdError): void {
    for (const { reject } of this.#awaited.values()) reject(error);
  }

  #runNext(): void {
    this.#running = undefined;
    this.#next();
  }

  #next(): void {
    if (this.#running !== undefined) return;
    this.#running = this.#waiting.shift();
    if (this.#running !== undefined) void this.#send(this.#running);
  }

  async #send(command: Command): Promise<void> {
    const wanted = (): boolean => this.#awaited.has(command.id);
    let sent = false;
    try {
      sent = await this.#sender.send({ ...command, wanted, begun: () => this.#sent.add(command) });
    } catch (error) {
      command.reject(error);
    }
    if (!sent && this.#running === command) this.#runNext();
  }
}
