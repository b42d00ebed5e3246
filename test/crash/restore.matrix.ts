import { afterAll, beforeAll, describe, test } from "vitest";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { restorePoints } from "../support/restore-points.ts";
import { type ImageKind, RestoreTrials, STRETCHED_MS } from "../support/restore-trials.ts";
import { nameOfPoint } from "../support/save-points.ts";
import { useVms } from "../support/vms.ts";
import { MATRIX_SEED, Tally } from "./tally.ts";

const COUNTS = { perPhase: 5, workers: 15, random: 36 };
const KINDS: readonly ImageKind[] = ["paused", "live", "compressed"];

describeEachQemu("restore", (binary) => {
  const tally = new Tally(`restore, ${binary.version}`);
  const start = useHelpers();
  const vms = useVms();
  let lab: Lab;
  let trials: RestoreTrials;
  beforeAll(async () => {
    lab = await Lab.open();
    trials = new RestoreTrials(binary, lab, start, vms);
    await trials.prepare();
  });
  afterAll(async () => {
    tally.print();
    await lab.close();
  });
  const shape = { connections: 5, lengthMs: STRETCHED_MS };
  describe(`seed ${MATRIX_SEED}`, () => {
    for (const [number, point] of restorePoints(seededRandom(MATRIX_SEED), shape, COUNTS).entries()) {
      const kind = KINDS[number % KINDS.length] as ImageKind;
      test(`${number} ${kind}, ${nameOfPoint(point)}`, () =>
        tally.count(point, () => trials.try(point, kind)));
    }
  });
});
