import { afterAll, beforeAll, expect, test } from "vitest";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeBothQemus } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { restorePoints } from "../support/restore-points.ts";
import { type ImageKind, RestoreTrials } from "../support/restore-trials.ts";
import { nameOfPoint, savePoints } from "../support/save-points.ts";
import { SaveTrials } from "../support/save-trials.ts";
import { useVms } from "../support/vms.ts";

// Every named phase once; `npm run crash-matrix` is the long form, with both QEMUs and at random times too.
const ONCE = { perPhase: 1, workers: 3, random: 0 };
/** Workers end in the same way whatever they write. */
const ONCE_MAPPED = { ...ONCE, workers: 1 };
const KINDS: readonly ImageKind[] = ["paused", "live", "compressed"];

for (const format of ["stream", "mapped-ram"] as const) {
  describeBothQemus(`hit at every phase of a save --format ${format}`, ({ seven, ten }) => {
    const start = useHelpers();
    let lab: Lab;
    let trials: SaveTrials;
    beforeAll(async () => {
      lab = await Lab.open();
      const binary = format === "stream" ? ten : seven;
      trials = new SaveTrials(binary, lab, start, { image: lab.file("vm.mfd"), format });
      await trials.prepare();
    });
    afterAll(() => lab.close());
    const random = seededRandom();
    const counts = format === "stream" ? ONCE : ONCE_MAPPED;
    const all = savePoints(random, { format, connections: 5, probes: 1, lengthMs: 300 }, counts);
    // Of a save of pages, whose targets and connections are those of any save, every third.
    for (const point of format === "stream" ? all : all.filter((_, n) => n % 3 === 0)) {
      test(`${nameOfPoint(point)} (TEST_SEED=${random.seed})`, async () => {
        expect(["old", "new"]).toContain((await trials.try(point)).image);
      });
    }
  });
}

describeBothQemus("hit at every step of a restore", ({ seven }) => {
  const start = useHelpers();
  const vms = useVms();
  let lab: Lab;
  let trials: RestoreTrials;
  beforeAll(async () => {
    lab = await Lab.open();
    trials = new RestoreTrials(seven, lab, start, vms);
    await trials.prepare();
  });
  afterAll(() => lab.close());
  const random = seededRandom();
  const points = restorePoints(random, { connections: 5, lengthMs: 800 }, ONCE);
  for (const [number, point] of points.entries()) {
    const kind = KINDS[number % KINDS.length] as ImageKind;
    test(`${kind}, ${nameOfPoint(point)} (TEST_SEED=${random.seed})`, async () => {
      const { qemu } = await trials.try(point, kind);
      if (point.phase === "feeding" && point.victim !== "qemu") expect(qemu).toBe("ended");
    });
  }
});
