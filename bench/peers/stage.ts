import { mkdtemp, open, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { dropCached } from "../../src/io/libc.ts";
import { privateDirectory } from "../../src/io/private-directory.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";
import { BenchGuest } from "./guest.ts";
import type { RestorePeer, SavePeer } from "./peer.ts";
import type { Sample } from "./sample.ts";

export interface StageOptions {
  readonly binary: QemuBinary;
  /** The guest's, unless a measurement has guests of its own. */
  readonly ramBytes: number;
  /** Where images lie for a while. */
  readonly directory: string;
  /** Of the compiled drain.c. */
  readonly yardstick: string;
  readonly signal: AbortSignal;
}

/** Everything that a run starts or creates, so that nothing of it is left behind. */
export class Stage {
  readonly options: StageOptions;
  readonly #images: string;
  readonly #sockets: string = privateDirectory("peers");
  readonly #guests = new Set<BenchGuest>();
  readonly #end = new AbortController();
  /** Aborts with the run, and when the stage is closed. */
  readonly signal: AbortSignal;
  #guest: BenchGuest | undefined;
  #runs = 0;

  private constructor(options: StageOptions, images: string) {
    this.options = options;
    this.#images = images;
    this.signal = AbortSignal.any([options.signal, this.#end.signal]);
    // Whoever waits for a QEMU hears of it then.
    options.signal.addEventListener("abort", () => {
      for (const { vm } of this.#guests) vm.killSync();
    });
  }

  static async open(options: StageOptions): Promise<Stage> {
    return new Stage(options, await mkdtemp(join(options.directory, "multifd-peers-")));
  }

  async close(): Promise<void> {
    this.#end.abort();
    await Promise.all([...this.#guests].map((guest) => guest.close()));
    for (const directory of [this.#images, this.#sockets])
      await rm(directory, { recursive: true, force: true });
  }

  /** A path among the images. */
  readonly file = (name: string): string => join(this.#images, name);

  /** The guest that is saved over and over; it is made when it is asked for first. */
  async guest(): Promise<BenchGuest> {
    this.#guest ??= await this.source(this.options.ramBytes);
    return this.#guest;
  }

  async source(ramBytes: number): Promise<BenchGuest> {
    return this.#keep(await BenchGuest.source(this.options.binary, ramBytes, this.signal));
  }

  /** Saves into `file`, which must not exist, and sees what of it was left unsynced. */
  async save(peer: SavePeer, guest: BenchGuest, file: string): Promise<Sample> {
    const sample = await peer.save(guest, file, this);
    const syncMs = await timedSync(file);
    await guest.runAMoment();
    return { ...sample, syncMs };
  }

  /** Restores a file that the page cache does not hold, into a guest made for it. */
  async restore(peer: RestorePeer, file: string): Promise<Sample> {
    await forget(file);
    const { binary, ramBytes } = this.options;
    const guest = this.#keep(await BenchGuest.destination(binary, ramBytes));
    try {
      return await peer.restore(guest, file, this);
    } finally {
      await this.dismiss(guest);
    }
  }

  /** What one measurement has left, so that the next has the room: all images, and every guest but the usual. */
  async clear(): Promise<void> {
    for (const guest of this.#guests) if (guest !== this.#guest) await this.dismiss(guest);
    for (const name of await readdir(this.#images)) await rm(this.file(name), { force: true });
  }

  async dismiss(guest: BenchGuest): Promise<void> {
    this.#guests.delete(guest);
    await guest.close();
  }

  /** A path for a socket that nobody has used. */
  readonly socket = (name: string): string => join(this.#sockets, `${name}-${this.#runs++}`);

  #keep(guest: BenchGuest): BenchGuest {
    this.#guests.add(guest);
    return guest;
  }
}

/** How long fsync takes: what the file's bytes lacked to be on disk. */
async function timedSync(file: string): Promise<number> {
  const handle = await open(file, "r+");
  try {
    const startedAt = performance.now();
    await handle.sync();
    return performance.now() - startedAt;
  } finally {
    await handle.close();
  }
}

/** Has the page cache give a file up; it was synced already. */
async function forget(file: string): Promise<void> {
  const handle = await open(file, "r");
  try {
    dropCached(handle.fd);
  } finally {
    await handle.close();
  }
}
