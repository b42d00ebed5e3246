import fs from "node:fs";
import { parseAddress } from "../../channels/address.ts";
import { connectChannel } from "../../channels/connector.ts";
import type { Connection } from "../../channels/handover.ts";
import { MultifdError } from "../../errors.ts";
import { PAGE_SIZE } from "../../formats/migration/wire.ts";
import { ioError } from "../../io/file-io.ts";
import { peerCredentials } from "../../io/libc.ts";
import type { Source } from "../../io/source.ts";
import { ControlBlock } from "../../pool/control-block.ts";
import type { PagingTask } from "../../pool/messages.ts";
import { Board } from "../../pool/paging/board.ts";
import { RunPool } from "../../pool/run-pool.ts";
import { POSTCOPY } from "../../pool/worker-code.ts";
import { whenAborted } from "../cancellation.ts";
import type { CompletedEvent, RunEvent } from "../events.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";
import { mappedFacts } from "../mapped-ram/outgoing.ts";
import { figures, Meter } from "../meter.ts";
import { teller } from "../telling.ts";
import { DEFAULT_CONNECT_TIMEOUT_MS } from "../validate.ts";
import { instantFigures } from "./figures.ts";
import { identityOf } from "./identity.ts";
import { AtMostOnce } from "./once.ts";
import type { InstantFigures, InstantOptions } from "./options.ts";
import { type PagingPlan, planPaging } from "./plan.ts";

const TICK_MS = 100;

/** One instant restore, from the connection to the destination's last word. */
export class InstantRun {
  readonly #options: InstantOptions;
  readonly #source: Source;
  readonly #contents: MappedContents;
  readonly #once: AtMostOnce;
  readonly #plan: PagingPlan;
  readonly #tell: (event: RunEvent) => void;
  readonly #control = new ControlBlock();
  readonly #board = new Board();
  readonly #meter = new Meter();
  readonly #abort = new AbortController();
  #failure: MultifdError | null = null;
  #connection: Connection | null = null;
  /** The thread's beat as it was last told. */
  #beat = -1;

  private constructor(
    options: InstantOptions,
    source: Source,
    contents: MappedContents,
    once: AtMostOnce,
    plan: PagingPlan,
  ) {
    this.#options = options;
    this.#source = source;
    this.#contents = contents;
    this.#once = once;
    this.#plan = plan;
    this.#tell = teller(options);
  }

  /** Throws what AtMostOnce.of and planPaging throw, before anything has happened. */
  static async prepare(
    options: InstantOptions,
    source: Source,
    contents: MappedContents,
  ): Promise<InstantRun> {
    const once = await AtMostOnce.of(source.fd, contents, options);
    return new InstantRun(options, source, contents, once, await planPaging(options, source.fd, contents));
  }

  async execute(): Promise<CompletedEvent> {
    const cachedFd = openCached(this.#source.fd);
    const pool = new RunPool(POSTCOPY, this.#plan.threads);
    const unwatch = whenAborted(this.#options.signal, (error) => this.#fail(error));
    const ticking = setInterval(() => this.#progress(), TICK_MS);
    try {
      // From its first byte on QEMU's main loop waits for us, and so does the user for the guest.
      await pool.loaded();
      await this.#serve(pool, await this.#connect(), cachedFd);
    } catch (error) {
      throw await this.#afterFailure(this.#failure ?? error);
    } finally {
      clearInterval(ticking);
      unwatch();
      this.#connection?.close(this.#control.isTaken(0));
      await pool.close();
      fs.closeSync(cachedFd);
    }
    await this.#once.complete();
    return this.#completed();
  }

  async #connect(): Promise<Connection> {
    const { connect, connectTimeoutMs = DEFAULT_CONNECT_TIMEOUT_MS, resume = false } = this.#options;
    const late = new MultifdError(
      "CONNECT_TIMEOUT",
      `nothing at ${connect} took the connection within ${connectTimeoutMs / 1000} s: does QEMU wait there (migrate-incoming)?`,
    );
    const timer = setTimeout(() => this.#fail(late), connectTimeoutMs);
    try {
      this.#connection = await connectChannel(
        parseAddress(connect),
        this.#plan.firstBytes,
        this.#abort.signal,
        // Whoever is in a hurry starts us first; a QEMU that is to go on listens already.
        !resume,
      );
    } finally {
      clearTimeout(timer);
    }
    this.#tell({ event: "channel", channel: "main" });
    return this.#connection;
  }

  async #serve(pool: RunPool, connection: Connection, cachedFd: number): Promise<void> {
    const tasks = this.#plan.tasks({
      socketFd: connection.workerFd,
      cachedFd,
      control: this.#control.memory,
      board: this.#board.memory,
    });
    const peer = peerCredentials(connection.workerFd);
    if (this.#options.resume) await this.#begin(peer?.pid);
    const run = (task: PagingTask): Promise<unknown> =>
      pool.run<null>(task).catch((error: unknown) => this.#fail(error));
    const [serving, ...reading] = tasks.map(run);
    const launching = this.#launch(peer?.pid).catch((error: unknown) => this.#fail(error));
    await serving;
    this.#control.setFinished();
    await Promise.all([...reading, launching]);
    if (this.#failure !== null) throw this.#failure;
  }

  /** Between the last moment at which nothing has happened, and the guest's running. */
  async #launch(pid: number | undefined): Promise<void> {
    const over = (): boolean => this.#control.giveUp || this.#control.finished;
    if (!this.#options.resume) {
      await this.#control.until(() => this.#board.opened || over());
      if (over()) return;
      await this.#begin(pid);
      if (over()) return;
      this.#board.allowLaunch();
      this.#control.ring();
    }
    await this.#control.until(() => this.#board.ran || over());
    if (this.#board.ran) this.#tell({ event: "running", elapsedMs: this.#board.runningMs });
  }

  #begin(pid: number | undefined): Promise<void> {
    return this.#once.begin(pid === undefined ? null : identityOf(pid));
  }

  /** The first failure counts; what follows it is its consequence. */
  #fail(error: unknown): void {
    const typed =
      error instanceof MultifdError ? error : new MultifdError("INTERNAL", String(error), {}, error);
    this.#failure ??= typed;
    this.#control.setGiveUp();
    this.#abort.abort(this.#failure);
    this.#connection?.kill();
  }

  /** The guest has not run, if it was never told to, or if QEMU left by itself without a word that it came so far. */
  async #afterFailure(error: unknown): Promise<unknown> {
    if (!(error instanceof MultifdError)) return error;
    const { code, message, details } = error;
    const leftEarly = details.endOfFile === true && !this.#board.ran;
    const ran = this.#options.resume === true || (this.#board.told && !leftEarly);
    if (!ran) await this.#once.takeBack();
    return new MultifdError(code, message, { ...details, ran }, error);
  }

  #figures(): InstantFigures {
    return instantFigures(this.#board, this.#contents.presentPages, this.#options.resume === true);
  }

  /** Not told when the thread that serves pages says nothing: whoever watches us takes that for a hang. */
  #progress(): void {
    const { beat } = this.#board;
    if (beat === this.#beat && this.#control.isTaken(0)) return;
    const instant = this.#figures();
    const bytes = instant.pagesSent * PAGE_SIZE;
    const event = this.#meter.sample([{ channel: "main", bytes }], instant.pages * PAGE_SIZE);
    if (event === null) return;
    this.#beat = beat;
    const percent = instant.pages === 0 ? 100 : (100 * instant.pagesSent) / instant.pages;
    this.#tell({ ...event, percent: Math.floor(percent), instant });
  }

  #completed(): CompletedEvent {
    const instant = this.#figures();
    const bytes = instant.pagesSent * PAGE_SIZE;
    const { elapsedMs } = this.#meter;
    return {
      event: "completed",
      bytes,
      elapsedMs,
      image: mappedFacts(this.#options.image, this.#contents, this.#source.directIo),
      channels: [figures("main", bytes, elapsedMs)],
      instant,
    };
  }
}

/** The same file through the page cache. Throws IO. */
function openCached(fd: number): number {
  try {
    return fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDONLY);
  } catch (error) {
    throw ioError(error, "opening the image without O_DIRECT");
  }
}
