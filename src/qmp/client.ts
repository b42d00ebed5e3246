import { createConnection, type Socket } from "node:net";
import { MultifdError } from "../errors.ts";
import { peerCredentials } from "../io/libc.ts";
import { parseMessage, type QmpEvent, type QmpMessage, type QmpVersion, refusal } from "./messages.ts";
import type { ExecuteOptions, Monitor } from "./monitor.ts";

export interface QmpOptions {
  /** Bounds connecting plus greeting plus capabilities, in milliseconds. */
  readonly timeoutMs: number;
  /** Bounds each command that does not bring its own bound, in milliseconds; 30 s if absent. */
  readonly commandTimeoutMs?: number;
  /** Asked once when the connection is lost: why, for the error's message (QEMU's last words). Never rejects. */
  readonly explainLoss?: () => Promise<string>;
}

/** Something that QEMU owes us: the answer to command `what`, or "its greeting". */
interface Pending {
  readonly what: string;
  resolve(value: unknown): void;
  reject(error: MultifdError): void;
}

/**
 * Connects to QEMU's monitor at a unix socket, reads the greeting and enters command mode.
 * Rejects with QEMU_FAILED when nobody listens, QEMU stays silent or refuses.
 * A monitor serves one client at a time: a second one gets no greeting until the first leaves.
 */
export async function connectQmp(path: string, options: QmpOptions): Promise<QmpClient> {
  const client = new QmpClient(path, options);
  await client.ready();
  return client;
}

/** One connection to a QEMU Machine Protocol monitor (docs/interop/qmp-spec of QEMU 7.2 to 10). */
export class QmpClient implements Monitor {
  readonly place: string;
  readonly #options: QmpOptions;
  readonly #socket: Socket;
  readonly #pending = new Map<number | "greeting", Pending>();
  readonly #listeners = new Set<(event: QmpEvent) => void>();
  readonly #lossListeners = new Set<(error: MultifdError) => void>();
  #lost: Promise<MultifdError> | undefined;
  /** Told by the kernel once the connection is made. */
  pid: number | null = null;
  readonly passesFds = false;
  #connected = false;
  #closing = false;
  #version: QmpVersion | undefined;
  #nextId = 1;
  #unread = "";

  /** Use connectQmp(): a client is of use only once ready() has resolved. */
  constructor(path: string, options: QmpOptions) {
    this.place = path;
    this.#options = options;
    this.#socket = createConnection(path);
    this.#socket.setEncoding("utf8");
    this.#socket.on("connect", () => {
      this.#connected = true;
      this.pid =
        peerCredentials((this.#socket as unknown as { _handle: { fd: number } })._handle.fd)?.pid ?? null;
    });
    this.#socket.on("data", (text: string) => this.#receive(text));
    this.#socket.on("error", (error: NodeJS.ErrnoException) => this.#lose(error.message, error.code));
    this.#socket.on("close", () => this.#lose("QEMU closed the connection"));
  }

  async ready(): Promise<void> {
    const deadline = Date.now() + this.#options.timeoutMs;
    try {
      await this.#answer("greeting", "its greeting", this.#options.timeoutMs);
      await this.execute("qmp_capabilities", undefined, { timeoutMs: Math.max(1, deadline - Date.now()) });
    } catch (error) {
      this.#socket.destroy();
      throw error;
    }
  }

  /** What QEMU says of itself in the greeting. */
  get version(): QmpVersion {
    if (this.#version === undefined) throw new MultifdError("INTERNAL", "the QMP greeting has not come yet");
    return this.#version;
  }

  /**
   * Sends one command and resolves with what QEMU returns ({} for most). Rejects with QEMU_FAILED:
   * refused (details.class and details.text are QEMU's own words), monitor lost, or no answer in time.
   */
  async execute(command: string, args?: object, options: ExecuteOptions = {}): Promise<unknown> {
    if (this.#lost !== undefined) throw await this.#lost;
    const id = this.#nextId++;
    const answer = this.#answer(id, command, options.timeoutMs ?? this.#options.commandTimeoutMs ?? 30_000);
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\r\n`);
    return await answer;
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
    const timer = setTimeout(() => reject(this.#silence("the expected event", timeoutMs)), timeoutMs);
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

  async #answer(id: number | "greeting", what: string, timeoutMs: number): Promise<unknown> {
    const { promise, resolve, reject } = withResolvers<unknown>();
    this.#pending.set(id, { what, resolve, reject });
    const timer = setTimeout(() => reject(this.#silence(what, timeoutMs)), timeoutMs);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#pending.delete(id);
    }
  }

  #receive(text: string): void {
    const lines = (this.#unread + text).split("\n");
    this.#unread = lines.pop() ?? "";
    for (const line of lines) {
      if (line.trim() !== "" && !this.#dispatch(parseMessage(line))) {
        void this.#lose(`it sent something that is no QMP: ${line.slice(0, 80)}`);
        this.#socket.destroy();
        return;
      }
    }
  }

  #dispatch(message: QmpMessage): boolean {
    if (message.QMP !== undefined) {
      const { qemu, package: packager = "" } = message.QMP.version;
      this.#version = { major: qemu.major, minor: qemu.minor, micro: qemu.micro, package: packager };
      this.#pending.get("greeting")?.resolve(undefined);
    } else if (message.event !== undefined) {
      const event = { event: message.event, data: message.data ?? {} };
      for (const listener of [...this.#listeners]) listener(event);
    } else if (message.id !== undefined) {
      const pending = this.#pending.get(message.id); // none: its time was over before the answer came
      if (message.error === undefined) pending?.resolve(message.return);
      else pending?.reject(refusal(pending.what, message.error));
    } else {
      return false;
    }
    return true;
  }

  /** The first loss decides the reason; everything outstanding and everything later rejects with it. */
  #lose(reason: string, errno?: string): Promise<MultifdError> {
    this.#lost ??= this.#explainLoss(reason, errno).then((error) => {
      for (const { reject } of this.#pending.values()) reject(error);
      for (const reject of this.#lossListeners) reject(error);
      return error;
    });
    return this.#lost;
  }

  async #explainLoss(reason: string, errno: string | undefined): Promise<MultifdError> {
    if (!this.#connected) {
      const message = `cannot connect to QEMU's monitor at ${this.place}: ${reason}`;
      return new MultifdError("MONITOR_UNREACHABLE", message, { path: this.place, errno });
    }
    const explanation = this.#closing ? undefined : await this.#options.explainLoss?.();
    const message = `lost QEMU's monitor at ${this.place}: ${explanation ?? reason}`;
    return new MultifdError("QEMU_FAILED", message, { path: this.place, reason, errno });
  }

  #silence(what: string, timeoutMs: number): MultifdError {
    return new MultifdError(
      "QEMU_FAILED",
      `QEMU's monitor at ${this.place} did not send ${what} within ${timeoutMs} ms; it is blocked or busy with another client`,
      { path: this.place, awaited: what, timeoutMs },
    );
  }
}

/** Promise.withResolvers, which Node 20 lacks. */
function withResolvers<T>(): {
  promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
} {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
