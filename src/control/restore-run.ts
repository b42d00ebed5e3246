import { type Address, parseAddress } from "../channels/address.ts";
import { connectChannel } from "../channels/connector.ts";
import type { Connection } from "../channels/handover.ts";
import { MultifdError } from "../errors.ts";
import { blocks } from "../formats/image/blocks.ts";
import { type ChannelRecord, MAX_BLOCK_BYTES } from "../formats/image/model.ts";
import type { OpenedImage } from "../formats/image/open.ts";
import { alignedBuffer } from "../io/slab-arena.ts";
import type { Source } from "../io/source.ts";
import { readBlock, StoredChecksums } from "../pool/block-reader.ts";
import { ControlBlock } from "../pool/control-block.ts";
import type { Fed, FeedTask } from "../pool/messages.ts";
import { readSlots } from "../pool/ring-plan.ts";
import { FEED, RunPool, threadCount, type WorkerCode } from "../pool/run-pool.ts";
import { throwIfAborted, whenAborted } from "./cancellation.ts";
import { checkImage } from "./check-image.ts";
import { Delivery } from "./delivery.ts";
import type { ChannelName, CompletedEvent, RunEvent } from "./events.ts";
import { checkExpectations } from "./expectations.ts";
import { imageFacts, nameOf } from "./image-facts.ts";
import { figures, Meter } from "./meter.ts";
import { withSealedImage } from "./opened-image.ts";
import type { Log, RestoreOptions } from "./options.ts";
import { SILENT } from "./silent-log.ts";
import { teller } from "./telling.ts";
import { checkRestoreOptions, DEFAULT_CONNECT_TIMEOUT_MS } from "./validate.ts";

/** What a loading QEMU waits for on a new connection: the QEVM header of main, the init packet of a channel. */
const FIRST_BYTES = { main: 8, multifd: 64 } as const;

const INIT_PACKET_UUID = 8;

/**
 * One restore: everything that can be checked is checked before the first connection.
 * @param code the feed task; another one lets tests put faults below the data path
 */
export async function runRestore(options: RestoreOptions, code: WorkerCode = FEED): Promise<CompletedEvent> {
  checkRestoreOptions(options);
  const address = parseAddress(options.connect);
  throwIfAborted(options.signal);
  const log = options.log ?? SILENT;
  const completed = await withSealedImage(options, async (source, image) => {
    checkExpectations(image.metadata, options, log);
    if (options.verify === "first") {
      teller(options)({ event: "verified", ...(await checkImage(options, source, image)) });
    }
    return new RestoreRun(options, source, image, log).execute(address, code);
  });
  teller(options)(completed);
  return completed;
}

class RestoreRun {
  readonly #options: RestoreOptions;
  readonly #source: Source;
  readonly #image: OpenedImage;
  readonly #log: Log;
  readonly #tell: (event: RunEvent) => void;
  readonly #control = new ControlBlock();
  readonly #meter = new Meter();
  readonly #totalBytes: number;

  constructor(options: RestoreOptions, source: Source, image: OpenedImage, log: Log) {
    this.#options = options;
    this.#source = source;
    this.#image = image;
    this.#log = log;
    this.#tell = teller(options);
    this.#totalBytes = image.index.channels.reduce((sum, channel) => sum + channel.length, 0);
  }

  async execute(address: Address, code: WorkerCode): Promise<CompletedEvent> {
    const { channels } = this.#image.index;
    const pool = new RunPool(code, threadCount(this.#options.workers, channels.length));
    try {
      const firstBytes = await this.#readFirstBytes();
      const fed = await this.#deliver(address, firstBytes, pool);
      return this.#completed(fed);
    } finally {
      await pool.close();
    }
  }

  async #deliver(
    address: Address,
    firstBytes: readonly Uint8Array[],
    pool: RunPool,
  ): Promise<readonly { channel: ChannelName; fed: Fed }[]> {
    const delivery = new Delivery({
      control: this.#control,
      connections: this.#image.index.channels.length,
      stallTimeoutMs: this.#options.stallTimeoutMs ?? 0,
      connectTimeoutMs: this.#options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      feed: (number, connection) => pool.run<Fed>(this.#task(number, connection)),
      onTick: () => this.#progress(),
    });
    const unwatch = whenAborted(this.#options.signal, (error) => delivery.fail(error));
    try {
      await this.#connectAll(address, firstBytes, delivery);
      return await delivery.finish();
    } finally {
      unwatch();
    }
  }

  /**
   * The bytes that go out with the connections themselves; their blocks are checked like any other. All of them before
   * the first connection: a destination that got some of its channels waits for the others, and no cut ends that.
   */
  async #readFirstBytes(): Promise<readonly Uint8Array[]> {
    const slot = alignedBuffer(MAX_BLOCK_BYTES);
    const checksums = new StoredChecksums(this.#source);
    const firstBytes: Uint8Array[] = [];
    for (const record of this.#image.index.channels) {
      throwIfAborted(this.#options.signal);
      const [block] = blocks(record);
      if (block !== undefined) await readBlock(this.#source, block, slot, checksums);
      const first = slot.slice(0, Math.min(FIRST_BYTES[record.kind], record.length));
      if (record.kind === "multifd" && this.#options.uuid !== undefined) giveUuid(first, this.#options.uuid);
      firstBytes.push(first);
    }
    return firstBytes;
  }

  /** Main first, then channel by channel: QEMU 7.2 takes the first connection for main, whatever it says. */
  async #connectAll(address: Address, firstBytes: readonly Uint8Array[], delivery: Delivery): Promise<void> {
    const timeoutMs = this.#options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS;
    const timer = setTimeout(() => delivery.fail(connectTimeout(address, timeoutMs)), timeoutMs);
    try {
      for (const [number, record] of this.#image.index.channels.entries()) {
        const connection = await connectChannel(address, firstBytes[number] as Uint8Array, delivery.failed);
        const channel = nameOf(record);
        delivery.add(channel, connection);
        this.#log.debug({ channel }, "channel connected");
        this.#tell({ event: "channel", channel });
      }
    } catch (error) {
      delivery.fail(
        error instanceof MultifdError ? error : new MultifdError("INTERNAL", String(error), {}, error),
      );
    } finally {
      clearTimeout(timer);
    }
  }

  #task(number: number, connection: Connection): FeedTask {
    const { channels } = this.#image.index;
    const record = channels[number] as ChannelRecord;
    const { fd, base, directIo } = this.#source;
    return {
      connection: number,
      socketFd: connection.workerFd,
      image: { fd, base, directIo },
      control: this.#control.memory,
      record,
      slots: readSlots(record.blockBytes, channels.length),
      alreadySent: Math.min(FIRST_BYTES[record.kind], record.length),
      multifdChannels: channels.length - 1,
      rate: this.#options.rate ?? null,
    };
  }

  #progress(): void {
    const channels = this.#image.index.channels.map((record, number) => ({
      channel: nameOf(record),
      bytes: this.#control.moved(number),
    }));
    const event = this.#meter.sample(channels, this.#totalBytes);
    if (event !== null) this.#tell(event);
  }

  #completed(fed: readonly { channel: ChannelName; fed: Fed }[]): CompletedEvent {
    const { metadata, superblock } = this.#image;
    return {
      event: "completed",
      bytes: this.#totalBytes,
      elapsedMs: this.#meter.elapsedMs,
      image: imageFacts(this.#options.image, superblock, metadata, this.#source.directIo),
      channels: fed.map(({ channel, fed: { bytes, activeMs } }) => figures(channel, bytes, activeMs)),
    };
  }
}

/** A clone's channels introduce themselves with its own UUID (multifd_send_initial_packet, QEMU 7.2 to 10). */
function giveUuid(initPacket: Uint8Array, uuid: string): void {
  initPacket.set(Buffer.from(uuid.replaceAll("-", ""), "hex"), INIT_PACKET_UUID);
}

function connectTimeout(address: Address, timeoutMs: number): MultifdError {
  const where = address.kind === "unix" ? address.path : `port ${address.kind === "tcp" ? address.port : ""}`;
  const text = `the channels could not all be connected to ${where} within ${timeoutMs / 1000} s: does the destination expect as many channels?`;
  return new MultifdError("CONNECT_TIMEOUT", text, {});
}
