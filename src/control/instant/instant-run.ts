import fs from "node:fs";
import { availableParallelism } from "node:os";
import { parseAddress } from "../../channels/address.ts";
import { connectChannel } from "../../channels/connector.ts";
import type { Connection } from "../../channels/handover.ts";
import { MultifdError } from "../../errors.ts";
import { followed } from "../../formats/mapped-ram/main-steps.ts";
import { MAIN_HEADER_BYTES, PAGE_SIZE } from "../../formats/migration/wire.ts";
import { askReceived } from "../../formats/postcopy/commands.ts";
import { postcopyOpening } from "../../formats/postcopy/opening.ts";
import { readSpan } from "../../io/file-io.ts";
import type { Source } from "../../io/source.ts";
import { ControlBlock } from "../../pool/control-block.ts";
import type { PagingTask, ReadPart, ServePart } from "../../pool/messages.ts";
import { Board } from "../../pool/paging/board.ts";
import { Slots } from "../../pool/paging/slots.ts";
import { RunPool } from "../../pool/run-pool.ts";
import { POSTCOPY } from "../../pool/worker-code.ts";
import { whenAborted } from "../cancellation.ts";
import type { CompletedEvent, RunEvent } from "../events.ts";
import { checkedSteps } from "../mapped-ram/checked-steps.ts";
import type { MappedContents } from "../mapped-ram/contents.ts";
import { mappedFacts } from "../mapped-ram/outgoing.ts";
import { figures, Meter } from "../meter.ts";
import { teller } from "../telling.ts";
import { DEFAULT_CONNECT_TIMEOUT_MS } from "../validate.ts";
import { instantFigures } from "./figures.ts";
import type { InstantOptions } from "./options.ts";
import { readPageMemory } from "./page-memory.ts";

/** Windows that a reading thread has under way: one is read while the other one waits to be sent. */
const SLOTS_PER_READER = 2;
/** QEMU takes about 1 GiB/s, whatever comes. */
const MOST_READERS = 4;
const TICK_MS = 100;

/** What is sent with the connection, and what the thread that serves it begins with. */
interface Start {
  readonly firstBytes: Uint8Array;
  readonly how: ServePart["start"];
}

/** One instant restore, from the connection to the destination's last word. */
export class InstantRun {
  readonly #options: InstantOptions;
  readonly #source: Source;
  readonly #contents: MappedContents;
  readonly #common: Pick<PagingTask, "fd" | "blocks" | "pages" | "hostPages">;
  readonly #tell: (event: RunEvent) => void;
  readonly #control = new ControlBlock();
  readonly #board = new Board();
  readonly #meter = new Meter();
  readonly #abort = new AbortController();
  #failure: MultifdError | null = null;
  #connection: Connection | null = null;

  private constructor(
    options: InstantOptions,
    source: Source,
    contents: MappedContents,
    common: Pick<PagingTask, "fd" | "blocks" | "pages" | "hostPages">,
  ) {
    this.#options = options;
    this.#source = source;
    this.#contents = contents;
    this.#common = common;
    this.#tell = teller(options);
  }

  static async prepare(
    options: InstantOptions,
    source: Source,
    contents: MappedContents,
  ): Promise<InstantRun> {
    return new InstantRun(options, source, contents, {
      fd: source.fd,
      blocks: contents.stream.blocks,
      pages: await readPageMemory(source.fd, contents),
      hostPages: options.hostPages ?? {},
    });
  }

  async execute(): Promise<CompletedEvent> {
    const readers = this.#options.workers ?? Math.min(MOST_READERS, Math.max(1, availableParallelism() - 1));
    const start = await this.#start();
    const cachedFd = openCached(this.#source.fd);
    const pool = new RunPool(POSTCOPY, readers + 1);
    const unwatch = whenAborted(this.#options.signal, (error) => this.#fail(error));
    const ticking = setInterval(() => this.#progress(), TICK_MS);
    try {
      // From its first byte on QEMU's main loop waits for us, and so does the user for the guest.
      await pool.loaded();
      const connection = await this.#connect(start.firstBytes);
      await this.#serve(pool, this.#tasks(connection, cachedFd, start, readers));
    } catch (error) {
      throw this.#withRan(this.#failure ?? error);
    } finally {
      clearInterval(ticking);
      unwatch();
      this.#connection?.close(this.#control.isTaken(0));
      await pool.close();
      fs.closeSync(cachedFd);
    }
    return this.#completed();
  }

  async #start(): Promise<Start> {
    const { stream } = this.#contents;
    const { fd } = this.#source;
    const [first] = stream.blocks;
    if (this.#options.resume && first !== undefined) {
      return { firstBytes: askReceived(first.name), how: { kind: "resume" } };
    }
    const { opening, launch } = postcopyOpening(stream, this.#common.hostPages);
    return {
      firstBytes: await readSpan(fd, stream.base, MAIN_HEADER_BYTES),
      how: {
        kind: "open",
        opening: await checkedSteps(fd, opening),
        launch: await checkedSteps(fd, launch),
        firstByteAt: 0n,
      },
    };
  }

  async #connect(firstBytes: Uint8Array): Promise<Connection> {
    const { connect, connectTimeoutMs = DEFAULT_CONNECT_TIMEOUT_MS } = this.#options;
    const late = new MultifdError(
      "CONNECT_TIMEOUT",
      `nothing at ${connect} took the connection within ${connectTimeoutMs / 1000} s: does QEMU wait there (migrate-incoming)?`,
    );
    const timer = setTimeout(() => this.#fail(late), connectTimeoutMs);
    try {
      this.#connection = await connectChannel(parseAddress(connect), firstBytes, this.#abort.signal);
    } finally {
      clearTimeout(timer);
    }
    this.#tell({ event: "channel", channel: "main" });
    return this.#connection;
  }

  #tasks(connection: Connection, cachedFd: number, start: Start, readers: number): PagingTask[] {
    const { memory, count } = new Slots(readers * SLOTS_PER_READER);
    const slots = { memory, count };
    const serve: ServePart = {
      kind: "serve",
      socketFd: connection.workerFd,
      cachedFd,
      ramId: followed(this.#contents.stream).ramId,
      backgroundRate: this.#options.backgroundRate ?? "auto",
      slots,
      start: start.how.kind === "open" ? { ...start.how, firstByteAt: process.hrtime.bigint() } : start.how,
    };
    const read = Array.from({ length: readers }, (_, number): ReadPart => {
      return { kind: "read", slots, first: number * SLOTS_PER_READER, count: SLOTS_PER_READER };
    });
    const shared = { ...this.#common, control: this.#control.memory, board: this.#board.memory };
    return [serve, ...read].map((part) => ({ ...shared, part }));
  }

  async #serve(pool: RunPool, tasks: readonly PagingTask[]): Promise<void> {
    const [serving, ...reading] = tasks.map((task) =>
      pool.run<null>(task).catch((error: unknown) => this.#fail(error)),
    );
    const launching = this.#launch();
    await serving;
    this.#control.setFinished();
    await Promise.all([...reading, launching]);
    if (this.#failure !== null) throw this.#failure;
  }

  /** Between the last moment at which nothing has happened, and the guest's running. */
  async #launch(): Promise<void> {
    const over = (): boolean => this.#control.giveUp || this.#control.finished;
    if (!this.#options.resume) {
      await this.#control.until(() => this.#board.opened || over());
      if (over()) return;
      this.#board.allowLaunch();
      this.#control.ring();
    }
    await this.#control.until(() => this.#board.ran || over());
    if (this.#board.ran) this.#tell({ event: "running", elapsedMs: this.#board.runningMs });
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

  #withRan(error: unknown): unknown {
    if (!(error instanceof MultifdError)) return error;
    const { code, message, details } = error;
    const ran = this.#board.told || this.#options.resume === true;
    return new MultifdError(code, message, { ...details, ran }, error);
  }

  #figures(): ReturnType<typeof instantFigures> {
    return instantFigures(this.#board, this.#contents.presentPages, this.#options.resume === true);
  }

  #progress(): void {
    const instant = this.#figures();
    const bytes = instant.pagesSent * PAGE_SIZE;
    const event = this.#meter.sample([{ channel: "main", bytes }], instant.pages * PAGE_SIZE);
    if (event === null) return;
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

/** The same file through the page cache; as it is where the kernel gives no second opening. */
function openCached(fd: number): number {
  const path = `/proc/self/fd/${fd}`;
  return fs.openSync(path, fs.constants.O_RDONLY);
}
