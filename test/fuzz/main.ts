import { parseArgs } from "node:util";
import { fuzz } from "./run.ts";

/*
 * npm run fuzz -- [--inputs N] [--flips N] [--forgeries N] [--migrations N] [--seed N]
 *
 * Feeds damaged and forged bytes to everything that reads bytes of others, and ends at the first defect. The same
 * seed and counts give the same inputs.
 */

const { values } = parseArgs({
  options: {
    inputs: { type: "string", default: "1000000" },
    flips: { type: "string", default: "10000" },
    forgeries: { type: "string", default: "20000" },
    migrations: { type: "string", default: "10000" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 2 ** 32)) },
  },
});
const { inputs, flips, forgeries, migrations, seed } = values;
console.log(`seed ${seed}`);
const report = await fuzz({
  seed: Number(seed),
  inputs: Number(inputs),
  flips: Number(flips),
  forgeries: Number(forgeries),
  migrations: Number(migrations),
});
for (const [target, counts] of Object.entries(report.tried)) {
  console.log(`${target}: ${counts.inputs} inputs, ${counts.taken} taken`);
}
console.log(
  `slowest input ${report.slowestMs} ms, memory grown by ${report.grownMib} MiB, ${Math.round(report.elapsedMs / 1000)} s`,
);
