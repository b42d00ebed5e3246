import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * The slowest files, slowest first, each of 20 s or more on two quiet cores. A bare machine knows no durations, and a long
 * file that begins last leaves one core idle to the end.
 */
const SLOWEST = [
  "interop/save-vm",
  "faults/save-qemu",
  "faults/restore-destinations",
  "faults/restore-giving-up",
  "faults/vm-restore",
  "interop/footprint",
  "interop/slow-disk",
  "interop/round-trip",
  "faults/hostile-floods",
  "faults/vm-save",
  "faults/save-channels",
  "faults/bad-disk",
  "faults/save-full-disk",
  "faults/save-truncated",
  "interop/engine-file",
  "interop/convert",
  "interop/restore-mapped",
  "interop/live-guest",
  "interop/save-mapped",
  "faults/damage",
  "faults/crash-points",
  "faults/hostile-files",
  "faults/save-output",
  "faults/save-target",
  "faults/every-code",
  "interop/virsh",
];

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
