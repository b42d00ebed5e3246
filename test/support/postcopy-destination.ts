import { Buffer } from "node:buffer";
import { once } from "node:events";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { descriptorOf } from "../../src/channels/handover.ts";
import { unsentBytes } from "../../src/io/libc.ts";
import { type Arrival, type ArrivedBlock, PostcopyReader } from "./postcopy-reader.ts";

const PAGE = 4096;
const RAM_ID = 1;
const [SHUT, PONG, REQ_PAGES_ID, RECV_BITMAP, RESUME_ACK] = [1, 2, 3, 5, 6];
const [CMD_PING, CMD_RUN, CMD_RESUME, CMD_RECV_BITMAP] = [2, 5, 9, 10];

export interface DestinationOptions {
  readonly hostPages?: Readonly<Record<string, number>>;
  /** It is in a recovery, and has these pages already: of each block, one bit for each page. */
  readonly received?: Readonly<Record<string, Uint8Array>>;
  /** It answers no PING with this number. */
  readonly silentOn?: number;
  /** What it says when all was sent; 0, that all went well, if absent. null: nothing. */
  readonly status?: number | null;
  /** Called with everything that came, before it is answered. */
  readonly onArrival?: (arrival: Arrival, destination: PostcopyDestination) => void;
}

/** The receiving side of a migration in postcopy, on a unix socket: it takes what comes and asks for what a test says. */
export class PostcopyDestination {
  readonly address: string;
  /** Pages that came, as `block:number`, in their order. A resumed one's earlier pages are not among them. */
  readonly order: string[] = [];
  readonly pages: Map<string, Buffer | null> = new Map();
  readonly commands: number[] = [];
  blocks: readonly ArrivedBlock[] = [];
  devices: Buffer = Buffer.alloc(0);
  ran = false;
  ended = false;
  /** Bytes that came. */
  bytes = 0;
  /** What QEMU would not have taken. */
  problem: Error | null = null;
  /** The source is gone. */
  readonly closed: Promise<void>;
  readonly #server: net.Server;
  readonly #options: DestinationOptions;
  readonly #reader: PostcopyReader;
  #socket: net.Socket | null = null;
  #wake: (() => void)[] = [];

  private constructor(server: net.Server, path: string, options: DestinationOptions) {
    this.address = `unix:${path}`;
    this.#server = server;
    this.#options = options;
    const { hostPages = {}, received } = options;
    this.#reader = new PostcopyReader(
      { resumed: received !== undefined, ramId: RAM_ID, hostPages },
      (arrival) => this.#hear(arrival),
    );
    this.closed = new Promise((resolve) => {
      server.once("connection", (socket) => {
        this.#socket = socket;
        socket.on("data", (chunk) => this.#take(chunk));
        socket.on("error", () => undefined);
        socket.on("close", () => {
          resolve();
          this.#changed();
        });
      });
    });
  }

  static async listen(path: string, options: DestinationOptions = {}): Promise<PostcopyDestination> {
    const server = net.createServer();
    server.listen(path);
    await once(server, "listening");
    return new PostcopyDestination(server, path, options);
  }

  async close(): Promise<void> {
    this.hangUp();
    this.#server.close();
    await once(this.#server, "close");
  }

  hangUp(): void {
    this.#socket?.destroy();
  }

  /** Waits until this holds. It must hold in the end: the test's own time is the limit. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake.push(resolve));
  }

  /** Asks for pages from this one on, as many as a host page of the block has. */
  request(block: string, page: number): void {
    const hostPage = this.#options.hostPages?.[block] ?? PAGE;
    this.requestBytes(block, page * PAGE, hostPage);
  }

  requestBytes(block: string, offset: number, length: number): void {
    const range = Buffer.alloc(12);
    range.writeBigUInt64BE(BigInt(offset));
    range.writeUInt32BE(length, 8);
    this.#message(REQ_PAGES_ID, Buffer.concat([range, counted(block)]));
  }

  /** Says something that may be none of QEMU's words. */
  say(bytes: Uint8Array): void {
    this.#socket?.write(bytes);
  }

  /** Reads nothing more, so that the source can send no more than the kernel holds. */
  pause(): void {
    this.#socket?.pause();
  }

  resume(): void {
    this.#socket?.resume();
  }

  /** Waits until the source has read all that was said. */
  async untilHeard(): Promise<void> {
    while (this.#socket !== null && unsentBytes(descriptorOf(this.#socket)) > 0) await sleep(1);
  }

  shut(status: number): void {
    this.#message(SHUT, word(status));
  }

  #take(chunk: Buffer): void {
    this.bytes += chunk.length;
    if (this.problem !== null) return;
    try {
      this.#reader.push(chunk);
    } catch (error) {
      this.problem = error as Error;
    }
    this.#changed();
  }

  #hear(arrival: Arrival): void {
    this.#options.onArrival?.(arrival, this);
    if (this.#socket?.destroyed) return;
    if (arrival.what === "blocks") this.blocks = arrival.blocks;
    else if (arrival.what === "devices") this.devices = arrival.bytes;
    else if (arrival.what === "page")
      this.#place(arrival.block, arrival.page.address / PAGE, arrival.page.bytes);
    else if (arrival.what === "command") this.#obey(arrival.number, arrival.data);
    else if (arrival.what === "end") this.#end();
  }

  #place(block: string, page: number, bytes: Buffer | null): void {
    const name = `${block}:${page}`;
    const had = ((this.#options.received?.[block]?.[page >> 3] ?? 0) >> (page & 7)) & 1;
    if (had === 1 || this.pages.has(name)) throw new Error(`page ${name} came twice`);
    this.order.push(name);
    this.pages.set(name, bytes === null ? null : Buffer.from(bytes));
  }

  #obey(number: number, data: Buffer): void {
    this.commands.push(number);
    if (number === CMD_PING && data.readUInt32BE() !== this.#options.silentOn) this.#message(PONG, data);
    else if (number === CMD_RUN) this.ran = true;
    else if (number === CMD_RESUME) this.#message(RESUME_ACK, word(1));
    else if (number === CMD_RECV_BITMAP) this.#tellReceived(data);
  }

  #tellReceived(name: Buffer): void {
    const bitmap = this.#options.received?.[name.toString("latin1", 1)] ?? Buffer.alloc(0);
    const size = Buffer.alloc(8);
    size.writeUInt32BE(bitmap.length, 4);
    this.#message(RECV_BITMAP, name);
    this.say(Buffer.concat([size, bitmap, Buffer.from("0123456789abcdef", "hex")]));
  }

  #end(): void {
    this.ended = true;
    const { status = 0 } = this.#options;
    if (status === null) return;
    this.shut(status);
    this.#socket?.end();
  }

  #message(type: number, data: Buffer): void {
    const head = Buffer.alloc(4);
    head.writeUInt16BE(type);
    head.writeUInt16BE(data.length, 2);
    this.say(Buffer.concat([head, data]));
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake();
  }
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function counted(text: string): Buffer {
  return Buffer.concat([Buffer.of(text.length), Buffer.from(text, "latin1")]);
}
