import fs from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { pickImageDirectory } from "../demo/image-dir.ts";
import { MultifdError } from "../errors.ts";
import { openDirect, probeRead } from "../io/image-target/direct-io.ts";
import { privateDirectory } from "../io/private-directory.ts";
import { chooseQemu } from "../vm/find-qemu.ts";
import type { Fill, Operation, PageMix } from "./choices.ts";
import { Generator } from "./generator/generator.ts";
import { describeMachine, type Machine } from "./machine.ts";
import { measure, type Samples } from "./measure.ts";
import type { Peer } from "./peer.ts";
import { QemuPeer } from "./qemu-peer.ts";
import { type Recommendation, recommend } from "./recommend.ts";
import { type Result, resultsOf } from "./results.ts";
import { type RoundsProgress, runRounds } from "./rounds.ts";
import { type Combination, combinationsOf, type LeftOut, nameOf, type Sweep } from "./sweep.ts";

/** What is at the other end of the channels. */
export type Source =
  | { readonly kind: "generator"; readonly pages: PageMix }
  | { readonly kind: "qemu"; readonly path: string; readonly fill: Fill };

/** The same, as it was found. */
export type UsedSource =
  | { readonly kind: "generator"; readonly pages: PageMix }
  | {
      readonly kind: "qemu";
      readonly path: string;
      readonly version: string;
      readonly accelerator: "kvm" | "tcg";
      readonly fill: Fill;
    };

export interface BenchOptions {
  readonly source: Source;
  /** The guest's RAM, a multiple of 1 MiB. */
  readonly ramBytes: number;
  /** directIo: on where the file system takes O_DIRECT, if absent. */
  readonly sweep: Omit<Sweep, "directIo"> & Partial<Pick<Sweep, "directIo">>;
  readonly operations: readonly Operation[];
  /** Measured ones; a warm-up comes on top. */
  readonly rounds: number;
  /** Where the images lie for a while. */
  readonly directory: string;
  /** Ends it: everything is cleared away, and it rejects with the signal's reason. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: RoundsProgress) => void;
}

export interface BenchReport {
  readonly machine: Machine;
  readonly source: UsedSource;
  readonly ramBytes: number;
  readonly rounds: number;
  readonly sweep: Sweep;
  readonly leftOut: readonly LeftOut[];
  readonly results: readonly Result[];
  readonly recommended: Recommendation | null;
}

/** An image of random pages, its packet headers and an unused extent for each channel. */
function imageBytes(ramBytes: number, { channels }: Pick<Sweep, "channels">): number {
  return ramBytes * 1.05 + Math.max(...channels) * 4 * 2 ** 20;
}

/**
 * Measures all combinations of a sweep, in turns. Nothing of it is left when this settles, however it ends.
 * Rejects with NO_SPACE, QEMU_MISSING, USAGE (nothing of the sweep can be), what the helper or QEMU failed with, or the
 * signal's reason.
 */
export async function runBench(options: BenchOptions): Promise<BenchReport> {
  const { rounds, ramBytes, signal, onProgress, operations } = options;
  const stage = new Stage();
  try {
    const reserved = { bytes: 0, inMemory: false };
    const bytes = imageBytes(ramBytes, options.sweep);
    const { directory } = await pickImageDirectory(bytes, reserved, options.directory);
    const image = join(await stage.directory(directory), "bench.image");
    const directIoWorks = await takesDirectIo(image);
    const sweep: Sweep = { directIo: [directIoWorks ? "on" : "off"], ...options.sweep };
    const { combinations, leftOut } = combinationsOf(sweep, directIoWorks);
    if (combinations.length === 0) throw nothingToDo(leftOut);
    const machine = await describeMachine(directory);
    const socket = join(stage.socketDirectory(), "save");
    const { peer, source } = await startPeer(options);
    stage.keep(peer);

    const bench = { peer, image, socket, operations };
    const ways = combinations.map((combination) => ({
      name: nameOf(combination, sweep),
      run: (until: AbortSignal): Promise<Samples> => measure(bench, combination, until),
    }));
    const taken = await runRounds(ways, { rounds, signal, onProgress });
    const byCombination = combinations.map((combination): readonly [Combination, readonly Samples[]] => {
      return [combination, taken.get(nameOf(combination, sweep)) ?? []];
    });
    const results = resultsOf(byCombination, ramBytes);
    return { machine, source, ramBytes, rounds, sweep, leftOut, results, recommended: recommend(results) };
  } catch (error) {
    // Ctrl-C reaches the helper and QEMU as well, and what fails because of that is not the reason.
    throw signal.aborted ? signal.reason : error;
  } finally {
    await stage.clear();
  }
}

async function startPeer({ source, ramBytes, signal }: BenchOptions): Promise<{
  readonly peer: Peer;
  readonly source: UsedSource;
}> {
  if (source.kind === "generator") return { peer: new Generator(ramBytes, source.pages), source };
  const binary = await chooseQemu(source.path);
  const peer = await QemuPeer.start({ binary, ramBytes, fill: source.fill, signal });
  const { path, version } = binary;
  return { peer, source: { ...source, path, version, accelerator: peer.accelerator } };
}

async function takesDirectIo(probe: string): Promise<boolean> {
  const { O_RDWR, O_CREAT } = fs.constants;
  const open = (extra: number): number => fs.openSync(probe, O_RDWR | O_CREAT | extra, 0o600);
  const { fd, directIo } = await openDirect(
    "auto",
    probe,
    open,
    (opened) => probeRead(opened, 0),
    () => {},
  );
  fs.closeSync(fd);
  await rm(probe);
  return directIo;
}

function nothingToDo(leftOut: readonly LeftOut[]): MultifdError {
  const reasons = leftOut.map(({ combination, reason }) => `${combination}: ${reason}`).join("; ");
  return new MultifdError("USAGE", `no combination can be measured here (${reasons}); choose others`);
}

/** Everything that has to go again. */
class Stage {
  readonly #cleanUps: (() => Promise<unknown>)[] = [];

  async directory(parent: string): Promise<string> {
    const directory = await mkdtemp(join(parent, "multifd-bench-"));
    this.#removed(directory);
    return directory;
  }

  /** Short enough for a socket's path, wherever the images are. */
  socketDirectory(): string {
    const directory = privateDirectory("bench");
    this.#removed(directory);
    return directory;
  }

  keep(peer: Peer): void {
    this.#cleanUps.unshift(() => peer.close());
  }

  async clear(): Promise<void> {
    for (const cleanUp of this.#cleanUps) await cleanUp();
  }

  #removed(directory: string): void {
    this.#cleanUps.unshift(() => rm(directory, { recursive: true, force: true }));
  }
}
