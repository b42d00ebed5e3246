import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** The slowest files, slowest first, as they were on two quiet cores: what begins last must not leave one of them idle. */
const SLOWEST = ["interop/footprint", "faults/restore-giving-up"];

/** The slowest first; all others as vitest has them. */
class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const place = SLOWEST.findIndex((name) => moduleId.endsWith(`/test/${name}.test.js`));
      return place < 0 ? SLOWEST.length : place;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

// Tests run from the build, so that they exercise the very files that ship,
// worker threads included (Node 20 cannot load TypeScript in a worker).
export default defineConfig({
  test: {
    include: ["dist/test/**/*.test.js"],
    exclude: ["node_modules/**"],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: "forks",
    // Real QEMUs and O_DIRECT writers share two cores and one disk: more files at once only add noise.
    maxWorkers: 2,
    sequence: { sequencer: SlowestFirst },
  },
});
