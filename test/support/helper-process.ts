import { type ChildProcess, spawn } from "node:child_process";
import type { Readable, Writable } from "node:stream";
import { afterEach } from "vitest";
import { MAIN } from "../../src/entry-points.ts";
import { parseEvent, type SeenEvent } from "../../src/own-program.ts";

export type { SeenEvent };

/** Far above what anything here takes on a busy machine; only a hang gets there. */
const PATIENCE_MS = 30_000;

export interface HelperOptions {
  /** Descriptors of this process that the helper inherits, as 3, 4, … */
  readonly fds?: readonly number[];
  readonly umask?: number;
  /** Who it runs as, where that is somebody else than this process. */
  readonly uid?: number;
  /** Another build of the command line than the one that ships. */
  readonly main?: string;
  /** Shell text that ends by replacing itself with "$0" "$@", for what only a shell can set. */
  readonly shell?: string;
  /** It answers with one object instead of events (`inspect --json`), which is not looked at. */
  readonly answers?: boolean;
}

/** The built command line as a process of its own, driven the way a manager does. */
export class HelperProcess {
  readonly pid: number;
  /** What came on stdout so far; a line that is no event makes every wait fail. */
  readonly events: SeenEvent[] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  readonly #answers: boolean;
  #exit: string | number | null = null;
  #unfinished = "";
  #impure: string | null = null;
  #stderr = "";
  #wake: (() => void)[] = [];

  constructor(args: readonly string[], options: HelperOptions) {
    const { fds = [], umask, uid, main = MAIN, shell, answers = false } = options;
    this.#answers = answers;
    const plain = [process.execPath, main, ...args] as const;
    const [program, ...rest] = shell === undefined ? plain : (["bash", "-c", shell, ...plain] as const);
    const before = umask === undefined ? undefined : process.umask(umask);
    try {
      const user = uid === undefined ? {} : { uid, gid: uid };
      this.#child = spawn(program, rest, { stdio: ["pipe", "pipe", "pipe", ...fds], ...user });
    } finally {
      if (before !== undefined) process.umask(before);
    }
    this.pid = this.#child.pid ?? 0;
    (this.#child.stdout as Readable).setEncoding("utf8").on("data", (text: string) => this.#read(text));
    (this.#child.stderr as Readable).setEncoding("utf8").on("data", (text: string) => {
      this.#stderr += text;
    });
    (this.#child.stdin as Writable).on("error", () => undefined);
    this.#ended = new Promise((resolve) => {
      this.#child.on("close", (code, signal) => {
        this.#exit = signal ?? code;
        this.#wakeAll();
        resolve();
      });
    });
  }

  get stderr(): string {
    return this.#stderr;
  }

  /** Whether SIGKILL ended it. */
  get killed(): boolean {
    return this.#exit === "SIGKILL";
  }

  /** The first event of this name that fits, past or to come. */
  waitEvent(name: string, fits: (event: SeenEvent) => boolean = () => true): Promise<SeenEvent> {
    return this.#until(`the event ${name}`, () =>
      this.events.find((event) => event.event === name && fits(event)),
    );
  }

  /** Exit status, or the name of the signal that ended it. */
  async exit(): Promise<string | number> {
    await this.#until("its end", () => this.#exit ?? undefined);
    if (this.#unfinished !== "" && !this.killed)
      throw new Error(`stdout ends in an unfinished line: ${this.#unfinished}`);
    return this.#exit as string | number;
  }

  /** Its end, which must be a failure told in one event and one line: what the event says, and the status. */
  async failure(): Promise<{ status: string | number; code: string; message: string; details: object }> {
    const status = await this.exit();
    const last = this.events.at(-1);
    if (last?.event !== "failed") throw new Error(`it ended without failed; ${this.#told()}`);
    const { code, message, details } = last;
    const line = `multifd-helper: ${message} [${code}]\n`;
    if (!this.#stderr.endsWith(line)) throw new Error(`stderr does not end with ${line}; ${this.#told()}`);
    return { status, code: String(code), message: String(message), details: details as object };
  }

  /** Its end, which must be a success: the `completed` event. */
  async success(): Promise<SeenEvent> {
    const status = await this.exit();
    const last = this.events.at(-1);
    if (status !== 0 || last?.event !== "completed") throw new Error(`it failed; ${this.#told()}`);
    return last;
  }

  /** A line on stdin. */
  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  closeStdin(): void {
    this.#child.stdin?.end();
  }

  /** Closes our ends of its stdout and stderr. */
  deafen(): void {
    this.#child.stdout?.destroy();
    this.#child.stderr?.destroy();
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#ended;
  }

  #read(text: string): void {
    const lines = (this.#unfinished + text).split("\n");
    this.#unfinished = lines.pop() ?? "";
    for (const line of lines) {
      const event = parseEvent(line);
      if (event === null && !this.#answers) this.#impure ??= line;
      else if (event !== null) this.events.push(event);
    }
    this.#wakeAll();
  }

  #wakeAll(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }

  async #until<T>(what: string, look: () => T | undefined): Promise<T> {
    const deadline = Date.now() + PATIENCE_MS;
    for (;;) {
      if (this.#impure !== null) throw new Error(`stdout has a line that is no event: ${this.#impure}`);
      const found = look();
      if (found !== undefined) return found;
      if (this.#exit !== null) throw new Error(`it ended with ${this.#exit} before ${what}; ${this.#told()}`);
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`waited ${PATIENCE_MS} ms for ${what}; ${this.#told()}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#wake.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  #told(): string {
    return `events ${JSON.stringify(this.events)}, stderr ${JSON.stringify(this.#stderr)}`;
  }
}

export type StartHelper = (args: readonly string[], options?: HelperOptions) => HelperProcess;

/** Helpers for the tests of one file; one that a test leaves running is killed when that test ends. */
export function useHelpers(): StartHelper {
  const started: HelperProcess[] = [];
  afterEach(async () => {
    await Promise.all(started.splice(0).map((helper) => helper.kill()));
  });
  return (args, options = {}) => {
    const helper = new HelperProcess(args, options);
    started.push(helper);
    return helper;
  };
}
