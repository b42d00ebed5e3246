import { randomUUID } from "node:crypto";
import { type Address, parseAddress } from "../channels/address.ts";
import type { Connection } from "../channels/handover.ts";
import { Listener } from "../channels/listener.ts";
import type { MultifdError } from "../errors.ts";
import { openTarget } from "../io/image-target/open.ts";
import type { Target } from "../io/image-target/target.ts";
import { ControlBlock, MAX_CONNECTIONS } from "../pool/control-block.ts";
import type { TakenIn } from "../pool/messages.ts";
import { RunPool, threadCount, type WorkerCode } from "../pool/run-pool.ts";
import { throwIfAborted, whenAborted } from "./cancellation.ts";
import type { CompletedEvent, ImageFacts, RunEvent } from "./events.ts";
import { MappedFormat } from "./mapped-ram/format.ts";
import { Meter } from "./meter.ts";
import type { Log, SaveOptions } from "./options.ts";
import { countParties } from "./parties.ts";
import { Reception } from "./reception.ts";
import { intakeTask, type SaveFormat } from "./save-format.ts";
import { decide } from "./seal-decision.ts";
import { warnOfSharedRam } from "./shared-ram.ts";
import { SILENT } from "./silent-log.ts";
import { Space } from "./space.ts";
import { StreamFormat } from "./stream-format.ts";
import { drainedFigures } from "./streams.ts";
import { teller } from "./telling.ts";
import { checkSaveOptions, DEFAULT_CONNECT_TIMEOUT_MS } from "./validate.ts";

/**
 * One save, from the listening socket to the published image.
 * @param code another task than the format's own lets tests put faults and delays below the data path
 */
export async function runSave(options: SaveOptions, code?: WorkerCode): Promise<CompletedEvent> {
  checkSaveOptions(options);
  const address = parseAddress(options.listen);
  throwIfAborted(options.signal);
  const log = options.log ?? SILENT;
  const target = await openTarget({
    image: options.image,
    offset: options.offset ?? 0,
    directIo: options.directIo ?? "auto",
    onNote: (note) => log.warn({}, note),
  });
  const run = new SaveRun(options, target, code, log);
  let completed: CompletedEvent;
  try {
    completed = await run.execute(address);
  } catch (error) {
    await run.discard();
    throw error;
  }
  teller(options)(completed);
  return completed;
}

class SaveRun {
  readonly #options: SaveOptions;
  readonly #target: Target;
  readonly #format: SaveFormat;
  readonly #code: WorkerCode;
  readonly #log: Log;
  readonly #tell: (event: RunEvent) => void;
  readonly #control = new ControlBlock();
  readonly #meter = new Meter();
  #published = false;
  #warned = false;

  constructor(options: SaveOptions, target: Target, code: WorkerCode | undefined, log: Log) {
    const identity = { uuid: randomUUID(), createdMs: Date.now() };
    const Format = options.format === "mapped-ram" ? MappedFormat : StreamFormat;
    this.#options = options;
    this.#target = target;
    this.#format = new Format(options, target, identity, this.#control);
    this.#code = code ?? this.#format.code;
    this.#log = log;
    this.#tell = teller(options);
  }

  async execute(address: Address): Promise<CompletedEvent> {
    const { signal } = this.#options;
    const space = new Space(this.#target, this.#options, this.#log);
    const taken = await this.#receive(address, space);
    const { streams, evidence } = await decide(taken, this.#meter, this.#options);
    throwIfAborted(signal);
    warnOfSharedRam(streams.main, this.#log);
    const image = await this.#format.seal(taken, streams, evidence);
    throwIfAborted(signal);
    this.#published = true;
    await this.#target.publish();
    return this.#completed(taken, image);
  }

  /** Removes what a failed run created; a sealed image that only missed its name is left to `publish`'s error. */
  async discard(): Promise<void> {
    if (!this.#published) await this.#target.discard();
  }

  /** Accepts and drains the channels; socket, workers and connections are gone when it returns. */
  async #receive(address: Address, space: Space): Promise<readonly TakenIn[]> {
    const options = this.#options;
    let pool: RunPool | null = null;
    let listener: Listener | null = null;
    const reception = new Reception({
      control: this.#control,
      channels: options.channels,
      connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      stallTimeoutMs: options.stallTimeoutMs ?? 0,
      prepare: () => this.#prepare(),
      drain: (number, connection) => (pool as RunPool).run<TakenIn>(this.#task(number, connection)),
      drainBacklog: async () => listener?.drainBacklog(),
      refused: () => listener?.refused ?? 0,
      onTick: () => {
        space.noteRam(this.#control.ramBytes);
        this.#progress(reception);
        this.#warnOfReturnPath();
      },
      onIdentified: (channel) => {
        this.#log.debug({ channel }, "channel connected");
        this.#tell({ event: "channel", channel });
      },
      onIgnored: (connection) =>
        this.#log.info({ connection }, "a connection closed without a word: ignored"),
    });
    const unwatch = whenAborted(options.signal, (error) => reception.fail(error));
    try {
      listener = await Listener.open(address, {
        allowRemote: options.allowRemote ?? false,
        allowUids: options.allowUids ?? [],
        log: this.#log,
        discardBacklog: options.discardBacklog ?? false,
        onConnection: (connection) => reception.accept(connection),
        onError: (error) => reception.fail(error),
      });
      // Its threads start while QEMU connects: listening does not wait for them.
      pool = new RunPool(this.#code, threadCount(options.workers, (options.channels ?? MAX_CONNECTIONS) + 1));
      this.#tell({ event: "listening", address: listener.address });
      if (this.#format.barriers) {
        countParties(this.#control, reception, listener).catch((error: MultifdError) =>
          reception.fail(error),
        );
      }
      return await reception.result;
    } finally {
      unwatch();
      this.#control.setFinished();
      reception.close();
      await listener?.close();
      await pool?.close();
    }
  }

  async #prepare(): Promise<void> {
    if (this.#options.replace === true) this.#target.giveUpEarlier();
    await this.#format.prepare();
  }

  #task(number: number, connection: Connection): object {
    return this.#format.task(
      intakeTask(number, connection, this.#target, this.#control.memory, this.#options),
    );
  }

  #warnOfReturnPath(): void {
    if (!this.#control.returnPath || this.#warned) return;
    this.#warned = true;
    const text =
      "QEMU opened a return path and will wait at the end for an answer that a file cannot give: cancel the migration, switch the capability return-path off, and migrate again";
    this.#log.warn({ channel: "main" }, text);
  }

  #progress(reception: Reception): void {
    const channels = reception.arrivals.flatMap(({ identity, number }) =>
      identity === "unknown" ? [] : { channel: identity, bytes: this.#control.moved(number) },
    );
    const event = this.#meter.sample(channels);
    if (event !== null) this.#tell(event);
  }

  #completed(taken: readonly TakenIn[], image: ImageFacts): CompletedEvent {
    const channels = drainedFigures(taken);
    const bytes = channels.reduce((sum, channel) => sum + channel.bytes, 0);
    return { event: "completed", bytes, elapsedMs: this.#meter.elapsedMs, image, channels };
  }
}
