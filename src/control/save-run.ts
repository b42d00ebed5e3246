import { randomUUID } from "node:crypto";
import { type Address, parseAddress } from "../channels/address.ts";
import type { Connection } from "../channels/handover.ts";
import { Listener } from "../channels/listener.ts";
import { type ImageMetadata, SUPERBLOCK_BYTES, type Superblock } from "../formats/image/model.ts";
import { openTarget } from "../io/image-target/open.ts";
import type { Target } from "../io/image-target/target.ts";
import { ControlBlock, MAX_CONNECTIONS } from "../pool/control-block.ts";
import type { Drained, DrainTask } from "../pool/messages.ts";
import { drainPlan } from "../pool/ring-plan.ts";
import { DRAIN, RunPool, threadCount, type WorkerCode } from "../pool/run-pool.ts";
import { throwIfAborted, whenAborted } from "./cancellation.ts";
import type { CompletedEvent } from "./events.ts";
import { Meter } from "./meter.ts";
import type { Log, SaveOptions } from "./options.ts";
import { Reception } from "./reception.ts";
import { describe, invalidate, seal } from "./seal.ts";
import { decide } from "./seal-decision.ts";
import { SILENT } from "./silent-log.ts";
import { Space } from "./space.ts";
import { drainedFigures } from "./streams.ts";
import { checkSaveOptions, DEFAULT_CONNECT_TIMEOUT_MS } from "./validate.ts";

/**
 * One save, from the listening socket to the published image.
 * @param code the drain task; another one lets tests put faults and delays below the data path
 */
export async function runSave(options: SaveOptions, code: WorkerCode = DRAIN): Promise<CompletedEvent> {
  const address = parseAddress(options.listen);
  checkSaveOptions(options);
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
  options.onEvent?.(completed);
  return completed;
}

class SaveRun {
  readonly #options: SaveOptions;
  readonly #target: Target;
  readonly #code: WorkerCode;
  readonly #log: Log;
  readonly #control = new ControlBlock();
  readonly #meter = new Meter();
  readonly #identity = { uuid: randomUUID(), createdMs: Date.now() };
  #published = false;

  constructor(options: SaveOptions, target: Target, code: WorkerCode, log: Log) {
    this.#options = options;
    this.#target = target;
    this.#code = code;
    this.#log = log;
    this.#control.claimed = SUPERBLOCK_BYTES;
  }

  async execute(address: Address): Promise<CompletedEvent> {
    const { signal } = this.#options;
    const space = new Space(this.#target, this.#options, this.#log);
    const drained = await this.#receive(address, space);
    const { streams, evidence } = await decide(drained, this.#meter, this.#options);
    throwIfAborted(signal);
    const metadata = describe(streams, evidence, this.#options.meta ?? {});
    const superblock = await seal(this.#target, this.#identity, drained, metadata);
    throwIfAborted(signal);
    this.#published = true;
    await this.#target.publish();
    return this.#completed(drained, metadata, superblock);
  }

  /** Removes what a failed run created; a sealed image that only missed its name is left to `publish`'s error. */
  async discard(): Promise<void> {
    if (!this.#published) await this.#target.discard();
  }

  /** Accepts and drains the channels; socket, workers and connections are gone when it returns. */
  async #receive(address: Address, space: Space): Promise<readonly Drained[]> {
    const options = this.#options;
    let pool: RunPool | null = null;
    let listener: Listener | null = null;
    const reception = new Reception({
      control: this.#control,
      channels: options.channels,
      connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      stallTimeoutMs: options.stallTimeoutMs ?? 0,
      prepare: () => this.#prepare(),
      drain: (number, connection) => (pool as RunPool).run<Drained>(this.#task(number, connection)),
      drainBacklog: async () => listener?.drainBacklog(),
      onTick: () => {
        space.noteRam(this.#control.ramBytes);
        this.#progress(reception);
      },
      onIdentified: (channel) => {
        this.#log.debug({ channel }, "channel connected");
        options.onEvent?.({ event: "channel", channel });
      },
      onIgnored: (connection) =>
        this.#log.info({ connection }, "a connection closed without a word: ignored"),
    });
    const unwatch = whenAborted(options.signal, (error) => reception.fail(error));
    try {
      listener = await Listener.open(address, {
        allowRemote: options.allowRemote ?? false,
        discardBacklog: options.discardBacklog ?? false,
        onConnection: (connection) => reception.accept(connection),
        onError: (error) => reception.fail(error),
      });
      // Its threads start while QEMU connects: listening does not wait for them.
      pool = new RunPool(this.#code, threadCount(options.workers, (options.channels ?? MAX_CONNECTIONS) + 1));
      options.onEvent?.({ event: "listening", address: listener.address });
      return await reception.result;
    } finally {
      unwatch();
      reception.close();
      await listener?.close();
      await pool?.close();
    }
  }

  async #prepare(): Promise<void> {
    if (this.#options.replace === true) this.#target.giveUpEarlier();
    await invalidate(this.#target, this.#identity.uuid, this.#identity.createdMs);
  }

  #task(number: number, connection: Connection): DrainTask {
    const { fd, base, directIo, capacity, sparse } = this.#target;
    const { checksum, maxBytes, rate } = this.#options;
    return {
      connection: number,
      socketFd: connection.workerFd,
      image: { fd, base, directIo },
      control: this.#control.memory,
      ...drainPlan(number),
      checksum: checksum !== "none",
      sparse,
      capacity,
      maxBytes: maxBytes ?? null,
      rate: rate ?? null,
    };
  }

  #progress(reception: Reception): void {
    const channels = reception.arrivals.flatMap(({ identity, number }) =>
      identity === "unknown" ? [] : { channel: identity, bytes: this.#control.moved(number) },
    );
    const event = this.#meter.sample(channels);
    if (event !== null) this.#options.onEvent?.(event);
  }

  #completed(drained: readonly Drained[], metadata: ImageMetadata, superblock: Superblock): CompletedEvent {
    const channels = drainedFigures(drained);
    return {
      event: "completed",
      bytes: channels.reduce((sum, channel) => sum + channel.bytes, 0),
      elapsedMs: this.#meter.elapsedMs,
      image: {
        path: this.#options.image,
        format: "stream",
        uuid: superblock.uuid,
        bytes: superblock.imageBytes,
        directIo: this.#target.directIo,
        machine: metadata.machine,
        vmUuid: metadata.vmUuid,
        multifdChannels: metadata.multifdChannels,
        compression: metadata.compression,
      },
      channels,
    };
  }
}
