import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import v8 from "node:v8";
import vm from "node:vm";
import { afterEach, beforeEach, expect, test } from "vitest";
import { restore, save, verify } from "../../src/index.ts";
import { readChannels } from "../support/built-image.ts";
import { FakePeer, largeMigration } from "../support/fake-peer.ts";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { RecordingDestination } from "../support/recording-destination.ts";

const MIB = 2 ** 20;
const CYCLES = 300;
/** One cycle in ten has real QEMUs at both ends, 7.2 and 10 in turn; the others a peer of the tests' own. */
const REAL_EVERY = 10;
const WARM_UP = 50;
const CHANNELS = { channels: 4 };
const RAM = 64 * MIB;
/** Resident memory creeps by about 0.07 MiB a run although the heap does not grow; docs/reliability.md has the figures. */
const RSS_PER_CYCLE_MIB = 0.2;

interface Sample {
  readonly descriptors: number;
  readonly threads: number;
  readonly rssMiB: number;
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
      workers: 2,
      onEvent: (event) => {
        if (event.event === "listening") void new FakePeer(event.address).play(migration);
      },
    });
    const { channels } = await readChannels(image);
    const destination = await RecordingDestination.listen(lab.file("in"), channels);
    try {
      await restore({ image, connect: destination.address, workers: 2 });
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
    const early = samples.slice(WARM_UP, WARM_UP + 50);
    const late = samples.slice(-50);
    const figures = { early: medians(early), late: medians(late), last: samples.at(-1) };
    console.log(`soak: ${CYCLES} cycles, ${CYCLES / REAL_EVERY} with real QEMUs: ${JSON.stringify(figures)}`);
    expect(figures.late.descriptors).toBe(figures.early.descriptors);
    expect(figures.late.threads).toBe(figures.early.threads);
    expect(figures.late.rssMiB).toBeLessThan(
      figures.early.rssMiB + RSS_PER_CYCLE_MIB * (CYCLES - 2 * WARM_UP),
    );
    expect(figures.late.heapMiB).toBeLessThan(figures.early.heapMiB + 4);
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

function sample(): Sample {
  const { rss, heapUsed } = process.memoryUsage();
  return {
    descriptors: readdirSync("/proc/self/fd").length,
    threads: readdirSync("/proc/self/task").length,
    rssMiB: Math.round(rss / MIB),
    heapMiB: Math.round(heapUsed / MIB),
  };
}

function medians(samples: readonly Sample[]): Sample {
  const median = (pick: (sample: Sample) => number): number =>
    samples.map(pick).sort((a, b) => a - b)[samples.length >> 1] as number;
  return {
    descriptors: median((s) => s.descriptors),
    threads: median((s) => s.threads),
    rssMiB: median((s) => s.rssMiB),
    heapMiB: median((s) => s.heapMiB),
  };
}
