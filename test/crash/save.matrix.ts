import { afterAll, beforeAll, describe, test } from "vitest";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { nameOfPoint, savePoints } from "../support/save-points.ts";
import { SaveTrials } from "../support/save-trials.ts";
import { MATRIX_SEED, Tally } from "./tally.ts";

const COUNTS = { perPhase: 5, workers: 15, random: 27 };

for (const format of ["stream", "mapped-ram"] as const) {
  describeEachQemu(`save --format ${format} to a path`, (binary) => {
    const start = useHelpers();
    const tally = new Tally(`save --format ${format}, ${binary.version}, to a path`);
    let lab: Lab;
    let trials: SaveTrials;
    beforeAll(async () => {
      lab = await Lab.open();
      trials = new SaveTrials(binary, lab, start, { image: lab.file("vm.mfd"), format });
      await trials.prepare();
    });
    afterAll(async () => {
      tally.print();
      await lab.close();
    });
    const points = savePoints(
      seededRandom(MATRIX_SEED),
      { format, connections: 5, probes: 1, lengthMs: 400 },
      COUNTS,
    );
    describe(`seed ${MATRIX_SEED}`, () => {
      for (const [number, point] of points.entries()) {
        test(`${number} ${nameOfPoint(point)}`, () => tally.count(point, () => trials.try(point)));
      }
    });
  });
}
