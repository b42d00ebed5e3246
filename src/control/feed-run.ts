import { type Address, parseAddress } from "../channels/address.ts";
import { connectChannel } from "../channels/connector.ts";
import type { Connection } from "../channels/handover.ts";
import { MultifdError } from "../errors.ts";
import { ControlBlock } from "../pool/control-block.ts";
import type { Fed, OutgoingTask } from "../pool/messages.ts";
import { type RunPool, threadCount } from "../pool/run-pool.ts";
import { whenAborted } from "./cancellation.ts";
import { Delivery } from "./delivery.ts";
import type { ChannelName, CompletedEvent, RunEvent } from "./events.ts";
import { figures, Meter } from "./meter.ts";
import type { Log, RestoreOptions } from "./options.ts";
import type { OutgoingChannel, OutgoingPlan } from "./outgoing.ts";
import { SILENT } from "./silent-log.ts";
import { teller } from "./telling.ts";
import { DEFAULT_CONNECT_TIMEOUT_MS } from "./validate.ts";

/** Where to, and how. */
export type FeedOptions = Pick<
  RestoreOptions,
  "connect" | "connectTimeoutMs" | "stallTimeoutMs" | "rate" | "workers" | "signal" | "onEvent" | "log"
>;

/**
 * Sends all channels of a plan to a destination that listens. Resolves once it has read everything; `completed` is the
 * caller's to tell.
 * @param pool its threads may load already; it stays the caller's
 * @throws MultifdError CONNECT_FAILED, CONNECT_TIMEOUT, DESTINATION_CLOSED, IMAGE_DAMAGED, IO, STALLED, CANCELLED …; a load
 *   that had begun ends in QEMU with an error then
 */
export async function feedPlan(
  options: FeedOptions,
  plan: OutgoingPlan,
  pool: RunPool,
): Promise<CompletedEvent> {
  const address = parseAddress(options.connect);
  pool.grow(threadCount(options.workers, plan.channels.length));
  return await new FeedRun(options, plan, pool).execute(address);
}

class FeedRun {
  readonly #options: FeedOptions;
  readonly #plan: OutgoingPlan;
  readonly #pool: RunPool;
  readonly #log: Log;
  readonly #tell: (event: RunEvent) => void;
  readonly #connectTimeoutMs: number;
  readonly #control = new ControlBlock();
  readonly #meter = new Meter();

  constructor(options: FeedOptions, plan: OutgoingPlan, pool: RunPool) {
    this.#options = options;
    this.#plan = plan;
    this.#pool = pool;
    this.#log = options.log ?? SILENT;
    this.#tell = teller(options);
    this.#connectTimeoutMs = options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
  }

  async execute(address: Address): Promise<CompletedEvent> {
    const delivery = new Delivery({
      control: this.#control,
      connections: this.#plan.channels.length,
      stallTimeoutMs: this.#options.stallTimeoutMs ?? 0,
      connectTimeoutMs: this.#connectTimeoutMs,
      feed: (number, connection) => this.#pool.run<Fed>(this.#task(number, connection), this.#plan.code),
      onTick: () => this.#progress(),
    });
    const unwatch = whenAborted(this.#options.signal, (error) => delivery.fail(error));
    try {
      await this.#connectAll(address, delivery);
      return this.#completed(await delivery.finish());
    } finally {
      unwatch();
    }
  }

  async #connectAll(address: Address, delivery: Delivery): Promise<void> {
    const timeoutMs = this.#connectTimeoutMs;
    const timer = setTimeout(() => delivery.fail(connectTimeout(address, timeoutMs)), timeoutMs);
    try {
      for (const { channel, firstBytes } of this.#plan.channels) {
        const connection = await connectChannel(address, firstBytes, delivery.failed);
        delivery.add(channel, connection);
        this.#log.debug({ channel }, "channel connected");
        this.#tell({ event: "channel", channel });
      }
      delivery.begin();
    } catch (error) {
      delivery.fail(
        error instanceof MultifdError ? error : new MultifdError("INTERNAL", String(error), {}, error),
      );
    } finally {
      clearTimeout(timer);
    }
  }

  #task(number: number, connection: Connection): object {
    const { task, firstBytes } = this.#plan.channels[number] as OutgoingChannel;
    const outgoing: OutgoingTask = {
      connection: number,
      socketFd: connection.workerFd,
      control: this.#control.memory,
      alreadySent: firstBytes.length,
      rate: this.#options.rate ?? null,
    };
    return { ...task, ...outgoing };
  }

  #progress(): void {
    const channels = this.#plan.channels.map(({ channel }, number) => {
      return { channel, bytes: this.#control.moved(number) };
    });
    const event = this.#meter.sample(channels, this.#plan.totalBytes);
    if (event !== null) this.#tell(event);
  }

  #completed(fed: readonly { channel: ChannelName; fed: Fed }[]): CompletedEvent {
    return {
      event: "completed",
      bytes: this.#plan.totalBytes,
      elapsedMs: this.#meter.elapsedMs,
      image: this.#plan.image,
      channels: fed.map(({ channel, fed: { bytes, activeMs } }) => figures(channel, bytes, activeMs)),
    };
  }
}

function connectTimeout(address: Address, timeoutMs: number): MultifdError {
  const where = address.kind === "unix" ? address.path : `port ${address.kind === "tcp" ? address.port : ""}`;
  const text = `the channels could not all be connected to ${where} within ${timeoutMs / 1000} s: does the destination expect as many channels?`;
  return new MultifdError("CONNECT_TIMEOUT", text, {});
}
