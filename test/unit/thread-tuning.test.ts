import { execFileSync } from "node:child_process";
import { pathToFileURL } from "node:url";
import { expect, test } from "vitest";

const MODULE = pathToFileURL(`${import.meta.dirname}/../../src/pool/thread-tuning.js`).href;

/** What of V8's flags a process of its own sets. */
function flagsSetBy(statements: string): readonly string[] {
  const script = `
    import v8 from "node:v8";
    import { syncBuiltinESMExports } from "node:module";
    const set = [];
    v8.setFlagsFromString = (flag) => set.push(flag);
    syncBuiltinESMExports();
    const { allowThreadTuning, tuneThreads } = await import(${JSON.stringify(MODULE)});
    ${statements}
    console.log(JSON.stringify(set));
  `;
  const out = execFileSync(process.execPath, ["--input-type=module", "--eval", script], { encoding: "utf8" });
  return JSON.parse(out) as string[];
}

test("a process that is not all ours keeps V8's flags", () => {
  expect(flagsSetBy("tuneThreads();")).toEqual([]);
});

test("ours sets them once, where they were measured", () => {
  const flags = process.version.startsWith("v20.") ? ["--interrupt-budget=300000"] : [];
  expect(flagsSetBy("allowThreadTuning(); tuneThreads(); tuneThreads();")).toEqual(flags);
});
