import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import v8 from "node:v8";
import vm from "node:vm";
import { afterEach, beforeEach, expect, test } from "vitest";
import { restore, save, verify } from "../../src/index.ts";
import { RunPool } from "../../src/pool/run-pool.ts";
import { readChannels } from "../support/built-image.ts";
import { FakePeer, largeMigration } from "../support/fake-peer.ts";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { allocatedBytes } from "../support/malloc.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { RecordingDestination } from "../support/recording-destination.ts";

const MIB = 2 ** 20;
const CYCLES = 300;
/** One cycle in ten has real QEMUs at both ends, 7.2 and 10 in turn; the others a peer of the tests' own. */
const REAL_EVERY = 10;
const WARM_UP = 50;
const CHANNELS = { channels: 4 };
const RAM = 64 * MIB;
const HEAP_NOISE_MIB = 4;
/** 5 KiB a cycle. */
const MALLOC_NOISE_MIB = 1;
/** Of the first and of the last samples, the median counts. */
const SAMPLES = 50;
/** A cycle has a save and a restore; each has a pool of two threads, on which koffi and our declarations are loaded. */
const THREADS = 2;
const POOLS_PER_CYCLE = 2;
const ONLY_LIBC = { url: new URL("../support/workers/only-libc.js", import.meta.url), name: "nothing" };

interface Sample {
  readonly descriptors: number;
  readonly threads: number;
  /** Of the address space: what a thread leaves here counts against vm.max_map_count, touched or not. */
  readonly mappings: number;
  readonly rssMiB: number;
  /** Not freed. Resident memory says less: V8's reserve and malloc's free space come and go in it by tens of MiB. */
  readonly mallocMiB: number;
  readonly heapMiB: number;
}

v8.setFlagsFromString("--expose-gc");
const collectGarbage = vm.runInNewContext("gc") as () => void;

describeBothQemus("soak", (qemus) => {
  const start = useHelpers();
  const usual = tmpdir();
  let temporary: string;
  let lab: Lab;
  beforeEach(async () => {
    // Everything temporary goes where nobody else's files are.
    temporary = mkdtempSync(path.join(usual, "soak-"));
    process.env.TMPDIR = temporary;
    lab = await Lab.open();
  });
  afterEach(async () => {
    await lab.close();
    process.env.TMPDIR = usual;
    rmSync(temporary, { recursive: true, force: true });
  });

  async function fakeCycle(number: number): Promise<void> {
    const image = lab.file("fake.mfd");
    const migration = largeMigration(1 + (number % 8), 4 * MIB);
    await save({
      image,
      listen: `unix:${lab.file("s")}`,
      workers: THREADS,
      onEvent: (event) => {
        if (event.event === "listening") void new FakePeer(event.address).play(migration);
      },
    });
    const { channels } = await readChannels(image);
    const destination = await RecordingDestination.listen(lab.file("in"), channels);
    try {
      await restore({ image, connect: destination.address, workers: THREADS });
      expect(destination.firstWrong).toBeNull();
    } finally {
      await destination.close();
    }
  }

  async function realCycle(number: number): Promise<void> {
    const binary = number % (2 * REAL_EVERY) === 0 ? qemus.seven : qemus.ten;
    const image = lab.file("real.mfd");
    // A laboratory of its own: its files and QEMUs are part of what must not add up.
    const own = await Lab.open();
    try {
      const source = await own.source({ binary, ramBytes: RAM }, number);
      await own.save(source, CHANNELS, { image });
      await own.restore({ binary, ramBytes: RAM }, CHANNELS, image);
    } finally {
      await own.close();
    }
  }

  test(`${CYCLES} cycles of save and restore in one process leave nothing behind`, async () => {
    const samples: Sample[] = [];
    for (let number = 0; number < CYCLES; number++) {
      await (number % REAL_EVERY === 0 ? realCycle(number) : fakeCycle(number));
      collectGarbage();
      samples.push(sample());
    }
    const figures = growth(samples.slice(WARM_UP));
    const threadsAlone = POOLS_PER_CYCLE * (await leftByPools(CYCLES - WARM_UP));
    console.log(
      `soak: ${CYCLES} cycles, ${CYCLES / REAL_EVERY} with real QEMUs: ${JSON.stringify({ ...figures, threadsAlone })}`,
    );
    expect(figures.late.descriptors).toBe(figures.early.descriptors);
    expect(figures.late.threads).toBe(figures.early.threads);
    // Fewer than one for each thread that came and went.
    expect(figures.late.mappings).toBeLessThan(figures.early.mappings + CYCLES);
    // koffi frees most of what it allocates for a thread, but not all: nothing else may stay.
    expect(figures.late.mallocMiB).toBeLessThan(figures.early.mallocMiB + threadsAlone + MALLOC_NOISE_MIB);
    expect(figures.late.heapMiB).toBeLessThan(figures.early.heapMiB + HEAP_NOISE_MIB);
    expect(readdirSync(lab.directory).sort()).toEqual(["fake.mfd", "real.mfd"]);
    expect(readdirSync(temporary)).toEqual([path.basename(lab.directory)]);
  }, 1_800_000);

  test("8 helpers at once, each with its own path", async () => {
    const runs = await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        const address = `unix:${lab.file(`s${n}`)}`;
        const image = lab.file(`${n}.mfd`);
        const helper = start(["save", image, "--listen", address, "--json", "--workers", "2"]);
        await helper.waitEvent("listening");
        return { helper, image, peer: new FakePeer(address) };
      }),
    );
    await Promise.all(runs.map(({ peer }, n) => peer.play(largeMigration(1 + n, 16 * MIB))));
    await Promise.all(runs.map(({ helper }) => helper.success()));
    for (const { image } of runs) {
      expect(await verify({ image, workers: 1 })).toMatchObject({ checked: "checksums and structure" });
    }
  });
});

/** MiB that stay when pools whose threads do nothing but load the libc calls come and go. */
async function leftByPools(count: number): Promise<number> {
  const samples: Sample[] = [];
  for (let pool = 0; pool < count; pool++) {
    await new RunPool(ONLY_LIBC, THREADS).close();
    collectGarbage();
    samples.push(sample());
  }
  const { early, late } = growth(samples);
  return Math.max(0, late.mallocMiB - early.mallocMiB);
}

function growth(samples: readonly Sample[]): { early: Sample; late: Sample } {
  return { early: medians(samples.slice(0, SAMPLES)), late: medians(samples.slice(-SAMPLES)) };
}

function sample(): Sample {
  const { rss, heapUsed } = process.memoryUsage();
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    threads: readdirSync("/proc/self/task").length,
    mappings: readFileSync("/proc/self/maps", "latin1").split("\n").length - 1,
    rssMiB: Math.round(rss / MIB),
    mallocMiB: allocatedBytes() / MIB,
    heapMiB: Math.round(heapUsed / MIB),
  };
}

function medians(samples: readonly Sample[]): Sample {
  const median = (pick: (sample: Sample) => number): number =>
    samples.map(pick).sort((a, b) => a - b)[samples.length >> 1] as number;
  return {
    descriptors: median((s) => s.descriptors),
    threads: median((s) => s.threads),
    mappings: median((s) => s.mappings),
    rssMiB: median((s) => s.rssMiB),
    mallocMiB: median((s) => s.mallocMiB),
    heapMiB: median((s) => s.heapMiB),
  };
}
