import { afterAll, beforeAll, describe, test } from "vitest";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { attachLoopDevice, describeWithLoopDevices } from "../support/mounts.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { nameOfPoint, savePoints } from "../support/save-points.ts";
import { SaveTrials } from "../support/save-trials.ts";
import { MATRIX_SEED, Tally } from "./tally.ts";

const COUNTS = { perPhase: 3, workers: 6, random: 12 };
const DEVICE_BYTES = 160 * 2 ** 20;

describeWithLoopDevices("over a sealed image on a block device", () => {
  for (const format of ["stream", "mapped-ram"] as const) {
    describeEachQemu(`save --format ${format}`, (binary) => {
      const start = useHelpers();
      const tally = new Tally(
        `save --format ${format}, ${binary.version}, over a sealed image on a block device`,
      );
      let lab: Lab;
      let trials: SaveTrials;
      let device: { readonly path: string; detach(): void };
      beforeAll(async () => {
        lab = await Lab.open();
        device = attachLoopDevice(lab.file("disk"), DEVICE_BYTES);
        trials = new SaveTrials(binary, lab, start, { image: device.path, format });
        await trials.prepare();
      });
      afterAll(async () => {
        tally.print();
        device.detach();
        await lab.close();
      });
      const points = savePoints(
        seededRandom(MATRIX_SEED),
        { format, connections: 5, probes: 0, lengthMs: 400 },
        COUNTS,
      );
      describe(`seed ${MATRIX_SEED}`, () => {
        for (const [number, point] of points.entries()) {
          test(`${number} ${nameOfPoint(point)}`, () => tally.count(point, () => trials.try(point)));
        }
      });
    });
  }
});
