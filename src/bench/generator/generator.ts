import { once } from "node:events";
import { rm } from "node:fs/promises";
import net from "node:net";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { Piscina } from "piscina";
import { MultifdError } from "../../errors.ts";
import { duplicate } from "../../io/libc.ts";
import { privateDirectory } from "../../io/private-directory.ts";
import { socketDescriptor } from "../../io/socket-descriptor.ts";
import { loadPiscina } from "../../piscina.ts";
import type { PageMix } from "../choices.ts";
import type { Destination, Peer, PeerShare } from "../peer.ts";
import { connected, dial } from "./dial.ts";
import { modernMain } from "./migration.ts";
import { PACKET_RAM_BYTES, packetTemplates } from "./packets.ts";
import { type ReadTask, type SendTask, SHARED, THREAD_URL, type ThreadData } from "./tasks.ts";

const MACHINE = "pc-q35-10.0";
const RAM = "pc.ram";
/** As much as a small machine's devices have. */
const DEVICES = { timer: Buffer.alloc(64, 0x11), cpu: Buffer.alloc(64 * 1024, 0x7e) };
/** No helper asks for more channels than multifd has. */
const BACKLOG = 511;

/**
 * A QEMU 10 that is none: it speaks the multifd protocol out of memory, in threads of its own and as fast as the helper
 * takes it, and reads what a restore sends without looking at it.
 */
export class Generator implements Peer {
  readonly ramBytes: number;
  readonly #directory = privateDirectory("bench");
  readonly #threads: Piscina;

  /** @param ramBytes a multiple of 1 MiB */
  constructor(ramBytes: number, mix: PageMix) {
    this.ramBytes = ramBytes;
    const workerData: ThreadData = { templates: packetTemplates(mix) };
    this.#threads = new (loadPiscina().Piscina)({
      filename: THREAD_URL.href,
      minThreads: availableParallelism(),
      maxThreads: availableParallelism(),
      // All connections of a migration live at once.
      concurrentTasksPerWorker: 1024,
      atomics: "disabled",
      recordTiming: false,
      trackUnmanagedFds: false,
      workerData,
    });
  }

  async migrate(address: string, channels: number, signal: AbortSignal): Promise<PeerShare> {
    const shared = new Int32Array(new SharedArrayBuffer(4 * SHARED.WORDS));
    const giveUp = (): void => {
      Atomics.store(shared, SHARED.GIVE_UP, 1);
      Atomics.notify(shared, SHARED.CONNECTED);
    };
    signal.addEventListener("abort", giveUp, { once: true });
    try {
      await this.#send(address, channels, shared);
      return { completedAt: performance.now(), cpuSeconds: null, receivedBytes: null };
    } finally {
      giveUp();
      signal.removeEventListener("abort", giveUp);
    }
  }

  /** Main goes first, and in step with the channels: each of its parts that ends in a barrier behind their SYNCs. */
  async #send(address: string, channels: number, shared: Int32Array): Promise<void> {
    const blocks = [{ name: RAM, bytes: this.ramBytes }];
    const passes = [Buffer.alloc(0)];
    const stream = modernMain({ machine: MACHINE, blocks, multifd: true, passes, devices: DEVICES });
    const main = await connected(dial(address));
    main.on("error", () => undefined).resume();
    try {
      const packets = this.ramBytes / PACKET_RAM_BYTES;
      const tasks = Array.from({ length: channels }, (_, id): Promise<void> => {
        const task: SendTask = { address, id, channels, block: RAM, packets, shared };
        return this.#threads.run(task, { name: "send" });
      });
      const sent = Promise.all(tasks);
      await Promise.race([sent, allConnected(shared, channels)]);
      main.write(stream.start);
      await sent;
      for (const pass of stream.passes) main.write(pass);
      await new Promise<void>((resolve, reject) => {
        main.once("error", reject);
        main.end(stream.end, resolve);
      });
    } catch (error) {
      main.destroy();
      throw error;
    }
  }

  async listen(channels: number): Promise<Destination> {
    const path = join(this.#directory, "destination");
    const server = net.createServer({ pauseOnConnect: true });
    server.listen({ path, backlog: BACKLOG });
    await once(server, "listening");
    const completed = this.#receive(server, 1 + channels);
    completed.catch(() => undefined);
    return {
      address: `unix:${path}`,
      completed,
      close: async () => {
        server.close();
        await rm(path, { force: true });
      },
    };
  }

  async #receive(server: net.Server, connections: number): Promise<PeerShare> {
    const reading: Promise<number>[] = [];
    await new Promise<void>((resolve) => {
      server.on("connection", (socket) => {
        const task: ReadTask = { fd: takenFrom(socket) };
        reading.push(this.#threads.run(task, { name: "read" }));
        if (reading.length === connections) resolve();
      });
    });
    const counts = await Promise.all(reading);
    const receivedBytes = counts.reduce((sum, bytes) => sum + bytes, 0);
    return { completedAt: performance.now(), cpuSeconds: null, receivedBytes };
  }

  async close(): Promise<void> {
    await this.#threads.destroy();
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** QEMU sends nothing of RAM before all its channels are connected. */
async function allConnected(shared: Int32Array, channels: number): Promise<void> {
  for (;;) {
    const now = Atomics.load(shared, SHARED.CONNECTED);
    if (now === channels || Atomics.load(shared, SHARED.GIVE_UP) === 1) return;
    await Atomics.waitAsync(shared, SHARED.CONNECTED, now).value;
  }
}

/** Takes the connection away from this thread's event loop. @returns a descriptor that is the caller's */
function takenFrom(socket: net.Socket): number {
  const fd = socketDescriptor(socket);
  if (fd === null) throw new MultifdError("INTERNAL", "a connection of the helper was closed as it was made");
  const taken = duplicate(fd);
  socket.destroy();
  return taken;
}
