import { createConnection, type Socket } from "node:net";
import { MultifdError } from "../errors.ts";
import { socketDescriptor } from "../io/socket-descriptor.ts";
import { LineSplitter } from "./lines.ts";
import { listeningQemu } from "./listening-process.ts";
import { parseMessage, type QmpEvent, type QmpMessage, type QmpVersion, refusal } from "./messages.ts";
import type { ExecuteOptions, Monitor } from "./monitor.ts";
import { type Command, CommandQueue } from "./queue.ts";
import { closedUngreeted, expectSocket, noQmp, notConnected, notGreeted } from "./unreachable.ts";
import { withResolvers } from "./with-resolvers.ts";

export interface QmpOptions {
  /** Bounds connecting plus greeting plus capabilities, in milliseconds. */
  readonly timeoutMs: number;
  /** Bounds each command that does not bring its own bound, in milliseconds; 30 s if absent. */
  readonly commandTimeoutMs?: number;
  /** Asked once when the connection is lost: why, for the error's message (QEMU's last words). Never rejects. */
  readonly explainLoss?: () => Promise<string>;
}

/** QEMU's longest answers, of query-qmp-schema, have some 200 KiB. */
const LONGEST_LINE = 64 * 2 ** 20;

/**
 * Connects to QEMU's monitor at a unix socket, reads the greeting and enters command mode, with out-of-band commands where
 * QEMU has them. Rejects with MONITOR_UNREACHABLE: nobody listens, no QMP, or no greeting in time, since a monitor serves
 * one client at a time and a second one is greeted when the first has left. With QEMU_FAILED: QEMU greets, and then is
 * lost or hangs.
 */
export async function connectQmp(path: string, options: QmpOptions): Promise<QmpClient> {
  await expectSocket(path);
  const client = new QmpClient(path, options);
  await client.ready();
  return client;
}

/** One connection to a QEMU Machine Protocol monitor (docs/interop/qmp-spec of QEMU 7.2 to 10). */
export class QmpClient implements Monitor {
  readonly place: string;
  readonly passesFds = true;
  readonly #options: QmpOptions;
  readonly #socket: Socket;
  readonly #lines = new LineSplitter(LONGEST_LINE);
  readonly #commands: CommandQueue;
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #greeted = withResolvers<void>();
  /** Told to whoever waits for an event. */
  readonly #lossListeners = new Set<(error: MultifdError) => void>();
  #lost: Promise<MultifdError> | undefined;
  #connected = false;
  #closing = false;
  #version: QmpVersion | undefined;
  #pid: number | null = null;
  #nextId = 1;

  /** Use connectQmp(): a client is of use only once ready() has resolved. */
  constructor(path: string, options: QmpOptions) {
    this.place = path;
    this.#options = options;
    this.#socket = createConnection(path);
    this.#commands = new CommandQueue(this.#socket);
    this.#greeted.promise.catch(() => {});
    this.#socket.on("connect", () => {
      this.#connected = true;
      const fd = socketDescriptor(this.#socket);
      this.#pid = fd === null ? null : listeningQemu(fd);
    });
    this.#socket.on("data", (piece: Buffer) => this.#receive(piece));
    this.#socket.on("error", (error: NodeJS.ErrnoException) => this.#lose(error.message, error.code));
    this.#socket.on("close", () => this.#lose("QEMU closed the connection"));
  }

  async ready(): Promise<void> {
    const { timeoutMs } = this.#options;
    const deadline = Date.now() + timeoutMs;
    const timer = setTimeout(() => {
      this.#greeted.reject(notGreeted(this.place, timeoutMs, this.#lines.unfinished));
    }, timeoutMs);
    try {
      await this.#greeted.promise;
      const enable = this.#commands.outOfBand ? { enable: ["oob"] } : undefined;
      await this.execute("qmp_capabilities", enable, { timeoutMs: Math.max(1, deadline - Date.now()) });
    } catch (error) {
      this.#socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What QEMU says of itself in the greeting. */
  get version(): QmpVersion {
    if (this.#version === undefined) throw new MultifdError("INTERNAL", "the QMP greeting has not come yet");
    return this.#version;
  }

  /** The process that listens on the socket, if it is a QEMU; null where libvirt or another manager opened the socket for it. */
  get pid(): number | null {
    return this.#pid;
  }

  /**
   * Sends one command and resolves with what QEMU returns ({} for most). Rejects with QEMU_FAILED: refused (details.class
   * and details.text are QEMU's own words), monitor lost, or no answer in time. A command whose time was over before its
   * turn came is never sent (details.sent is false); one that was sent may still be carried out.
   */
  async execute(command: string, args?: object, options: ExecuteOptions = {}): Promise<unknown> {
    if (this.#lost !== undefined) throw await this.#lost;
    const { promise, resolve, reject } = withResolvers<unknown>();
    const timeoutMs = options.timeoutMs ?? this.#options.commandTimeoutMs ?? 30_000;
    const outOfBand = options.outOfBand === true && this.#commands.outOfBand;
    const id = this.#nextId++;
    const verb = outOfBand ? "exec-oob" : "execute";
    const bytes = Buffer.from(`${JSON.stringify({ [verb]: command, arguments: args, id })}\r\n`);
    const request: Command = { id, what: command, bytes, fd: options.fd, outOfBand, resolve, reject };
    const timer = setTimeout(() => reject(this.#silence(request, timeoutMs)), timeoutMs);
    this.#commands.add(request);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#commands.forget(request);
    }
  }

  /** Calls `listener` for every event from now on; returns how to stop that. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Resolves with the first event from now on that `wanted` accepts: call it before the command that
   * causes the event. Rejects with QEMU_FAILED after `timeoutMs`, or when the monitor is lost.
   */
  waitEvent(wanted: (event: QmpEvent) => boolean, timeoutMs: number): Promise<QmpEvent> {
    const { promise, resolve, reject } = withResolvers<QmpEvent>();
    const stopListening = this.onEvent((event) => {
      if (wanted(event)) resolve(event);
    });
    const timer = setTimeout(() => reject(this.#noEvent(timeoutMs)), timeoutMs);
    this.#lossListeners.add(reject);
    void this.#lost?.then(reject);
    return promise.finally(() => {
      clearTimeout(timer);
      stopListening();
      this.#lossListeners.delete(reject);
    });
  }

  /** Ends the connection; QEMU itself runs on. Whatever is outstanding rejects. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#socket.destroy();
    await this.#lose("this side closed the connection");
  }

  #receive(piece: Buffer): void {
    const lines = this.#lines.push(piece);
    if (lines === null) this.#giveUp(`it sent more than ${LONGEST_LINE / 2 ** 20} MiB without a line's end`);
    for (const line of lines ?? []) {
      if (line.trim() === "") continue;
      if (!this.#dispatch(parseMessage(line))) {
        if (this.#version === undefined) this.#greeted.reject(noQmp(this.place, line.trim()));
        this.#giveUp(`it sent something that is no QMP: ${line.slice(0, 80)}`);
        return;
      }
    }
  }

  /** false: nothing that QEMU would say now. */
  #dispatch(message: QmpMessage): boolean {
    if (message.kind === "greeting") {
      this.#version = message.version;
      this.#commands.outOfBand = message.outOfBand;
      this.#greeted.resolve();
      return true;
    }
    if (this.#version === undefined) return false;
    switch (message.kind) {
      case "event":
        for (const listener of [...this.#listeners]) listener(message.event);
        return true;
      case "answer":
        return this.#commands.answered(message.id, ({ resolve }) => resolve(message.result));
      case "refusal":
        return this.#commands.answered(message.id, ({ what, reject }) =>
          reject(refusal(what, message.error)),
        );
      case "other":
        return false;
    }
  }

  #giveUp(reason: string): void {
    void this.#lose(reason);
    this.#socket.destroy();
  }

  /** The first loss decides the reason; everything outstanding and everything later rejects with it. */
  #lose(reason: string, errno?: string): Promise<MultifdError> {
    this.#lost ??= this.#explainLoss(reason, errno).then((error) => {
      this.#greeted.reject(error);
      this.#commands.rejectAll(error);
      for (const reject of this.#lossListeners) reject(error);
      return error;
    });
    return this.#lost;
  }

  async #explainLoss(reason: string, errno: string | undefined): Promise<MultifdError> {
    if (!this.#connected) return notConnected(this.place, { code: errno, message: reason });
    const explanation = this.#closing ? undefined : await this.#options.explainLoss?.();
    if (this.#version === undefined && explanation === undefined) return closedUngreeted(this.place, reason);
    const message = `lost QEMU's monitor at ${this.place}: ${explanation ?? reason}`;
    return new MultifdError("QEMU_FAILED", message, { path: this.place, reason, errno });
  }

  #silence(request: Command, timeoutMs: number): MultifdError {
    const { what } = request;
    const { busyWith, sent } = this.#commands.stateOf(request);
    const message = sent
      ? `QEMU's monitor at ${this.place} did not answer ${what} within ${timeoutMs} ms; QEMU hangs, or is blocked by what it does`
      : `QEMU's monitor at ${this.place} is busy with ${busyWith}, so that ${what} could not be sent within ${timeoutMs} ms`;
    return new MultifdError("QEMU_FAILED", message, { path: this.place, awaited: what, timeoutMs, sent });
  }

  #noEvent(timeoutMs: number): MultifdError {
    const message = `QEMU's monitor at ${this.place} did not send the expected event within ${timeoutMs} ms`;
    return new MultifdError("QEMU_FAILED", message, {
      path: this.place,
      awaited: "the expected event",
      timeoutMs,
    });
  }
}
