import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import type { CompletedEvent, FailedEvent, RunEvent } from "../../control/events.ts";
import type { Log } from "../../control/options.ts";
import { MAIN } from "../../entry-points.ts";
import { fromFailure, type MultifdError } from "../../errors.ts";
import { parseEvent } from "../../own-program.ts";

/** How a data plane ended: it said how, or it did not, and `why` is how a sentence about it goes on. */
export type DataPlaneEnd =
  | { readonly completed: CompletedEvent }
  | { readonly failure: MultifdError }
  | { readonly why: string };

export interface DataPlaneOptions {
  /** An open image, and how the user calls it. */
  readonly image: { readonly fd: number; readonly name: string };
  /** Behind `restore fd:3 --instant --json`. */
  readonly args: readonly string[];
  /** Events on the way: `completed` and `failed` are how it ends. */
  readonly onEvent: (event: RunEvent) => void;
  readonly log: Log;
}

const TICK_MS = 250;
/** Its heartbeat comes every second. */
const SILENT_TICKS = 12;
/** Before it serves pages it reads the image's index, which may take its time. */
const STARTING_TICKS = 120;
/** A signal that it does not obey in this time is followed by SIGKILL. */
const OBEY_MS = 2000;

/**
 * The process that serves the pages: our own command line, as a manager would start it. It lives on if this process is
 * killed, and serves the guest to the end: it has a session of its own, and nobody to read its events does not matter to it.
 */
export class DataPlane {
  /** Never rejects. */
  readonly ended: Promise<DataPlaneEnd>;
  readonly #child: ChildProcess;
  readonly #options: DataPlaneOptions;
  #end: DataPlaneEnd | null = null;
  #said = "";
  #ticks = 0;
  #serving = false;

  constructor(options: DataPlaneOptions) {
    this.#options = options;
    const args = ["restore", "fd:3", "--instant", ...options.args, "--json"];
    this.#child = spawn(process.execPath, [MAIN, ...args], {
      stdio: ["ignore", "pipe", "pipe", options.image.fd],
      detached: true,
    });
    for (const [stream, take] of [
      [this.#child.stdout, (line: string) => this.#takeEvent(line)],
      [this.#child.stderr, (line: string) => this.#takeWords(line)],
    ] as const) {
      createInterface(stream as Readable).on("line", take);
    }
    this.ended = this.#watch();
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /** Ends it, at once if need be. Resolves when it is gone; fine to call again. */
  async stop(): Promise<void> {
    this.#child.kill("SIGTERM");
    // A stopped process takes no other signal before it goes on.
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), OBEY_MS);
    await this.ended;
    clearTimeout(timer);
  }

  async #watch(): Promise<DataPlaneEnd> {
    // In ticks and not by the clock: while this process itself stands still, none pass.
    const timer = setInterval(() => {
      const allowed = this.#serving ? SILENT_TICKS : STARTING_TICKS;
      if (++this.#ticks > allowed) this.#giveUp(`said nothing for ${(allowed * TICK_MS) / 1000} s`);
    }, TICK_MS);
    this.#child.once("error", ({ message }) => this.#giveUp(`could not be started (${message})`));
    try {
      // "close" comes when the last line was read, too.
      const [status, signal] = (await once(this.#child, "close").catch(() => [null, null])) as [
        number | null,
        NodeJS.Signals | null,
      ];
      const how = signal === null ? `ended with status ${status}` : `was ended by ${signal}`;
      return this.#end ?? { why: this.#said === "" ? how : `${how} and said: ${this.#said}` };
    } finally {
      clearInterval(timer);
    }
  }

  #giveUp(why: string): void {
    this.#end ??= { why };
    this.#child.kill("SIGKILL");
  }

  #takeEvent(line: string): void {
    const seen = parseEvent(line);
    if (seen === null) return;
    this.#ticks = 0;
    const { time: _time, ...event } = seen;
    switch (event.event) {
      case "hello":
        return;
      case "completed": {
        const completed = event as unknown as CompletedEvent;
        this.#end ??= {
          completed: { ...completed, image: { ...completed.image, path: this.#options.image.name } },
        };
        return;
      }
      case "failed": {
        const failed = event as unknown as FailedEvent;
        this.#end ??= { failure: fromFailure({ ...failed, message: this.#named(failed.message) }) };
        return;
      }
      default:
        this.#serving ||= event.event === "progress" || event.event === "running";
        this.#options.onEvent(event as unknown as RunEvent);
    }
  }

  /** Its log goes on in ours; what else it writes are its last words. */
  #takeWords(line: string): void {
    const entry = parseLogLine(line);
    if (entry === null) this.#said = line;
    else this.#options.log[entry.level](entry.fields, this.#named(entry.message));
  }

  /** What it knows as fd:3 has a name for the user. */
  #named(text: string): string {
    return text.replaceAll("fd:3", this.#options.image.name);
  }
}

interface LogLine {
  readonly level: keyof Log;
  readonly fields: object;
  readonly message: string;
}

/** Numbers of pino's levels. */
const LEVELS: Readonly<Record<number, keyof Log>> = { 20: "debug", 30: "info", 40: "warn", 50: "error" };

/** null: the line is none of pino's. */
function parseLogLine(line: string): LogLine | null {
  try {
    const { level, msg, time: _time, pid: _pid, ...fields } = JSON.parse(line) as Record<string, unknown>;
    const name = LEVELS[Number(level)];
    return name === undefined ? null : { level: name, fields, message: String(msg) };
  } catch {
    return null;
  }
}
