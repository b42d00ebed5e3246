import { afterAll, beforeAll, describe, test } from "vitest";
import { InstantTrials, nameOfKills, randomKills, type TrialKind } from "../support/instant-trials.ts";
import { Lab } from "../support/lab.ts";
import { describeEachQemu } from "../support/qemus.ts";
import { seededRandom } from "../support/random.ts";
import { MATRIX_SEED, Tally } from "./tally.ts";

/** Each of them ends a source at 5 moments. */
const TRIALS = 12;
const KILLS = 5;

describeEachQemu("restore --instant, its source killed again and again", (binary) => {
  const tally = new Tally(`restore --instant, ${binary.version}`);
  let lab: Lab;
  let trials: InstantTrials;
  beforeAll(async () => {
    lab = await Lab.open();
    trials = new InstantTrials(lab, binary);
    await trials.prepare();
  });
  afterAll(async () => {
    tally.print();
    await lab.close();
  });

  const random = seededRandom(MATRIX_SEED);
  describe(`seed ${MATRIX_SEED}`, () => {
    for (let number = 0; number < TRIALS; number++) {
      const kind: TrialKind = number % 2 === 0 ? "paused" : "running";
      const kills = randomKills(random, KILLS, binary);
      test(`${number} a ${kind} guest, killed ${nameOfKills(kills)}`, () =>
        tally.count({ phase: `a ${kind} guest`, victim: "source" }, async () => {
          const { killed } = await trials.try(kind, kills);
          return { outcome: `killed ${killed} times` };
        }));
    }
  });
});
