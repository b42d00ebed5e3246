import type net from "node:net";
import { workerData } from "piscina";
import { initPacket, PacketWriter, type PageRun } from "../../formats/migration/packet-writer.ts";
import { Inlet } from "../../io/inlet.ts";
import { connected, dial } from "./dial.ts";
import { PACKET_RAM_BYTES, type PacketTemplate } from "./packets.ts";
import { type ReadTask, type SendTask, SHARED, type ThreadData } from "./tasks.ts";

const { templates } = workerData as ThreadData;
/** As much as QEMU reads at once; all connections of a thread read into the same, as nobody looks at it. */
const DISCARDED = Buffer.alloc(PACKET_RAM_BYTES);
/** Packets of a channel that are on their way at once, so that there is no pause between them. */
const IN_FLIGHT = 2;

const NOTHING = new Uint8Array(0);

/** Sends one channel at full speed, and ends it behind its last SYNC. */
export async function send(task: SendTask): Promise<void> {
  const { address, id, channels, shared } = task;
  const channel = new Channel(await connected(dial(address)));
  Atomics.add(shared, SHARED.CONNECTED, 1);
  Atomics.notify(shared, SHARED.CONNECTED);
  const packets = new PacketWriter(id, channels);
  await channel.write(initPacket(id, null));
  await channel.write(packets.sync());
  for (;;) {
    const number = Atomics.add(shared, SHARED.NEXT, 1);
    if (number >= task.packets || Atomics.load(shared, SHARED.GIVE_UP) === 1) break;
    const { normal, zero, payload } = templates[number % templates.length] as PacketTemplate;
    const first = number * PACKET_RAM_BYTES;
    const moved = ({ start, end }: PageRun): PageRun => ({ start: first + start, end: first + end });
    const header = packets.pages(task.block, normal.map(moved), zero.map(moved));
    await channel.write(header, payload);
  }
  await channel.write(packets.sync());
  await channel.end();
}

/** A channel's connection, which takes a packet while the one before is still on its way. */
class Channel {
  readonly #socket: net.Socket;
  readonly #broken: Promise<never>;
  readonly #writing: Promise<void>[] = [];

  constructor(socket: net.Socket) {
    this.#socket = socket.resume();
    this.#broken = new Promise((_, reject) => socket.once("error", reject));
    this.#broken.catch(() => undefined);
  }

  /** @param header is free again when this resolves; @param payload must stay as it is */
  async write(header: Uint8Array, payload: Uint8Array = NOTHING): Promise<void> {
    const socket = this.#socket;
    socket.cork();
    socket.write(Buffer.from(header));
    this.#writing.push(new Promise((resolve) => socket.write(payload, () => resolve())));
    socket.uncork();
    while (this.#writing.length >= IN_FLIGHT) await Promise.race([this.#writing.shift(), this.#broken]);
  }

  /** Resolves when all of it is in the kernel's hands. */
  async end(): Promise<void> {
    await Promise.race([new Promise<void>((resolve) => this.#socket.end(resolve)), this.#broken]);
  }
}

/** Reads a connection to its end, as fast as it comes. */
export async function read({ fd }: ReadTask): Promise<number> {
  let bytes = 0;
  const inlet = new Inlet(
    fd,
    () => DISCARDED,
    (count) => {
      bytes += count;
      return true;
    },
  );
  await inlet.ended;
  return bytes;
}
