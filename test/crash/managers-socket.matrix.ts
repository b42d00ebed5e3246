import fs from "node:fs";
import { afterAll, beforeAll, describe, test } from "vitest";
import { useHelpers } from "../support/helper-process.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { openRawListener } from "../support/raw-listener.ts";
import { nameOfPoint, savePoints } from "../support/save-points.ts";
import { SaveTrials } from "../support/save-trials.ts";
import { MATRIX_SEED, Tally } from "./tally.ts";

/** Where a QEMU 7.2 is lost for good unless the listening socket outlives the helper. */
const PHASES = ["listening", "connecting"];
const PER_PHASE = 16;

describeEachQemu("save through a socket that the manager holds", (binary) => {
  const start = useHelpers();
  const tally = new Tally(`save, ${binary.version}, fd:N held by the manager`);
  let lab: Lab;
  let trials: SaveTrials;
  let fd = -1;
  beforeAll(async () => {
    lab = await Lab.open();
    fd = openRawListener(lab.file("managers"));
    const managersSocket = { path: lab.file("managers"), fd };
    trials = new SaveTrials(binary, lab, start, { image: lab.file("vm.mfd"), managersSocket });
    await trials.prepare();
  });
  afterAll(async () => {
    tally.print();
    fs.closeSync(fd);
    await lab.close();
  });
  const counts = { perPhase: PER_PHASE, workers: 0, random: 0 };
  const all = savePoints(
    seededRandom(MATRIX_SEED),
    { format: "stream", connections: 5, probes: 1, lengthMs: 400 },
    counts,
  );
  const points = all.filter(({ phase, victim }) => PHASES.includes(phase) && victim === "helper");
  describe(`seed ${MATRIX_SEED}`, () => {
    for (const [number, point] of points.entries()) {
      test(`${number} ${nameOfPoint(point)}`, () => tally.count(point, () => trials.try(point)));
    }
  });
});
