import { readdirSync } from "node:fs";
import type { RolldownOptions } from "rolldown";

/** src/entry-points.ts says why, and finds them. */
const ENTRY_POINTS = [
  "src/index",
  "src/cli/main",
  "src/vm/guard/guardian-main",
  "src/bench/generator/thread",
  ...readdirSync("workers").map((file) => `workers/${file.replace(/\.ts$/, "")}`),
];

/** Each one file with all of our own modules; packages stay what they are, to be found and updated by npm. */
export default ENTRY_POINTS.map(
  (name): RolldownOptions => ({
    input: { [name]: `${name}.ts` },
    platform: "node",
    external: (id) => !/^[./]/.test(id),
    output: { dir: "dist/bundles", entryFileNames: "[name].js", codeSplitting: false },
    logLevel: "warn",
  }),
);
