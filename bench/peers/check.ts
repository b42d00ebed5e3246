import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { measure } from "./measure.ts";
import { MEASUREMENTS } from "./measurements.ts";
import { PLAN_OPTIONS, planOf } from "./options.ts";
import { REASONS } from "./reasons.ts";
import type { Report } from "./report.ts";
import { running } from "./running.ts";
import { judge, TARGETS, type Target } from "./targets.ts";
import { boundWords, withSpread } from "./words.ts";

/*
 * Prints each target, the figure and whether it holds. Measures what that takes, or with --from judges the samples of an
 * earlier run. Ends with status 1 when a target does not hold.
 */

/** Targets by name, or by the first words of it: "restore", "restore-stream". */
function chosen(only: readonly string[] | undefined): Target[] {
  if (only === undefined) return [...TARGETS];
  const unknown = only.find((words) => !TARGETS.some((target) => isMeant(target, words)));
  if (unknown === undefined) return TARGETS.filter((target) => only.some((words) => isMeant(target, words)));
  throw new Error(`there is no target ${unknown}, but ${TARGETS.map(({ name }) => name).join(", ")}`);
}

function isMeant({ name }: Target, words: string): boolean {
  return name === words || name.startsWith(`${words}-`);
}

await running(async (signal) => {
  const { values } = parseArgs({
    options: { ...PLAN_OPTIONS, only: { type: "string", multiple: true }, from: { type: "string" } },
  });
  const targets = chosen(values.only);
  const needed = MEASUREMENTS.filter(({ name }) => targets.some(({ measurement }) => measurement === name));
  const report =
    values.from === undefined
      ? await measure(planOf(values, needed), signal)
      : (JSON.parse(await readFile(values.from, "utf8")) as Report);
  const verdicts = judge(report, targets);
  for (const { target, figure, holds } of verdicts) {
    const verdict = holds === null ? "told " : holds ? "holds" : "FAILS";
    const median = `${withSpread(figure)} ${target.unit}`;
    console.log(
      `${verdict}  ${median.padEnd(26)} ${boundWords(target.bound, target.unit).padEnd(14)} ${target.what}`,
    );
    const reason = REASONS[target.name];
    if (reason !== undefined && holds === false) console.log(`       ${reason}`);
  }
  if (verdicts.some(({ holds }) => holds === false)) process.exitCode = 1;
});
