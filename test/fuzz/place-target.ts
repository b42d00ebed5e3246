import type { Buffer } from "node:buffer";
import { join } from "node:path";
import fc from "fast-check";
import { MultifdError } from "../../src/errors.ts";
import type { PlaceTask, PlaceWork } from "../../src/pool/messages.ts";
import type { RamMemory } from "../../src/pool/placing/ram-tables.ts";
import { newRegionBits } from "../../src/pool/placing/regions.ts";
import { type Random, seededRandom } from "../support/random.ts";
import { buildRandomMigration } from "../support/random-migration.ts";
import { type MigrationShape, migrationShapes } from "../support/random-migration-shape.ts";
import { hostileStreams } from "./hostile-streams.ts";
import { type Ending, MeetingPlace, placeAll } from "./place-run.ts";
import { FD, WatchedDisk } from "./watched-disk.ts";

const REFUSALS =
  /^(PROTOCOL|TLS_PEER|STREAM_INCOMPLETE|UNSUPPORTED_STREAM|NO_SPACE|LIMIT_EXCEEDED|CANCELLED)$/;
const MIB = 2 ** 20;
/** Enough for 16 GiB of RAM: more is told as too much, and a run reserves no more memory than this. */
const MOST_BYTES = 16 * MIB;
const MOST_PAGES = 250;
const SMALL = migrationShapes().filter(
  ({ blocks, passes }) => passes < 4 && blocks.reduce((sum, { pages }) => sum + pages, 0) <= MOST_PAGES,
);

/** What `save --format mapped-ram` does with what its connections carry: the code of its workers, over a disk that looks on. */
export class PlaceTarget {
  readonly #place: MeetingPlace;

  constructor(folder: string) {
    this.#place = new MeetingPlace(join(folder, "place"));
  }

  async open(): Promise<void> {
    await this.#place.open();
  }

  close(): void {
    this.#place.close();
  }

  /** Sends the hostile migration of this seed. @returns whether all of it was placed */
  async try(seed: number): Promise<boolean> {
    const random = seededRandom(seed);
    const [shape] = fc.sample(SMALL, { seed: seed | 0, numRuns: 1 }) as [MigrationShape];
    try {
      return await this.#placed(random, hostileStreams(random, buildRandomMigration(shape)));
    } catch (error) {
      const again = `--inputs 0 --flips 0 --forgeries 0 --migrations 1 --seed ${seed}`;
      throw new Error(`a defect shows with the migration of ${again}`, { cause: error });
    }
  }

  async #placed(random: Random, streams: readonly Buffer[]): Promise<boolean> {
    const work = workOf(random);
    const ram = ramMemory(work, random);
    const limits = {
      capacity: random.pick([null, null, null, 2 * MIB]),
      maxBytes: random.pick([null, null, null, 100_000]),
    };
    const base = work.kind === "image" ? 4096 * random.integer(4) : 0;
    const disk = new WatchedDisk(ram, base, streams[0]?.length ?? 0);
    const regions = newRegionBits();
    const slots = random.pick([2, 3]);
    const ending = await placeAll(
      random,
      this.#place,
      streams,
      (connection, socketFd, control): PlaceTask => ({
        ...{ connection, socketFd, control: control.memory, ...limits, rate: null },
        // No file stands behind it whose space could be reserved.
        sparse: false,
        ownsFile: false,
        ...{ image: { fd: FD, base, directIo: false }, blockBytes: 64 * 1024, slots, ram, regions, work },
      }),
      (...written) => disk.write(...written),
    );
    disk.expectSane();
    return judged(ending, () => disk.expectWhole(work));
  }
}

function judged(ending: Ending, expectWhole: () => void): boolean {
  let taken = true;
  for (const one of ending) {
    if (one.status === "fulfilled") continue;
    taken = false;
    const { reason } = one;
    if (!(reason instanceof MultifdError) || !REFUSALS.test(reason.code)) throw reason;
  }
  // A stream that ends early was taken as far as it went; whether that is enough is decided later.
  if (taken && ending.some((one) => one.status === "fulfilled" && one.value.main !== null)) expectWhole();
  return taken;
}

function workOf(random: Random): PlaceWork {
  return random.pick([{ kind: "image" }, { kind: "image" }, { kind: "image" }, { kind: "digest" }] as const);
}

function ramMemory(work: PlaceWork, random: Random): RamMemory {
  const growable = (): SharedArrayBuffer => new SharedArrayBuffer(0, { maxByteLength: MOST_BYTES });
  return {
    ...{ layout: growable(), bitmaps: growable(), roomy: growable() },
    checksums: work.kind === "image" && random.integer(4) > 0 ? growable() : null,
    digests: work.kind === "digest" ? growable() : null,
  };
}
