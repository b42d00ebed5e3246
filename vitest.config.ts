import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * The slowest files, slowest first, each of 20 s or more on two quiet cores. A bare machine knows no durations, and a long
 * file that begins last leaves one core idle to the end.
 */
const SLOWEST = [
  "faults/crash-points",
  "interop/save-vm",
  "faults/save-qemu",
  "faults/restore-destinations",
  "interop/memory-backends",
  "interop/footprint",
  "faults/bad-disk",
  "interop/snapshot",
  "faults/hostile-peers",
  "faults/vm-save",
  "faults/managed-kill-points",
  "faults/place-refusals",
  "faults/restore-giving-up",
  "faults/instant-vm",
  "faults/hostile-sizes",
  "interop/running-guests",
  "interop/snapshot-faults",
  "interop/managed",
  "faults/vm-restore",
  "faults/save-channels",
  "faults/save-full-disk",
  "faults/place-targets",
  "interop/engine-file",
  "interop/instant-preconditions",
  "interop/instant-vm",
  "interop/slow-disk",
  "interop/live-guest",
  "interop/round-trip",
  "faults/save-truncated",
  "faults/hostile-files",
  "faults/convert-kill-points",
  "interop/save-mapped",
  "faults/every-code",
  "interop/restore-mapped",
  "interop/virsh",
  "faults/vm-flows",
  "faults/convert",
  "faults/save-access",
  "faults/signal-phases",
  "interop/convert",
];

/** Small files that change nothing which others see, so that they can share a process. */
const UNIT = "dist/test/unit/**/*.test.js";
/** Of these the ones that mock modules: a mock outlasts its file. */
const MOCKING = "dist/test/unit/cli/library-calls.test.js";

/** The slowest first; the small ones, which share a process, last and together; all others as vitest has them. */
class SlowestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId, project }: TestSpecification): number => {
      if (project.name === "unit") return SLOWEST.length + 1;
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
    testTimeout: 60_000,
    hookTimeout: 60_000,
    pool: "forks",
    // Real QEMUs and O_DIRECT writers share two cores and one disk: more files at once only add noise.
    maxWorkers: 2,
    sequence: { sequencer: SlowestFirst },
    projects: [
      {
        extends: true,
        test: { name: "apart", include: ["dist/test/{faults,interop,property}/**/*.test.js", MOCKING] },
      },
      {
        // To start a process for each and to load the same modules in it takes longer than most of them run.
        extends: true,
        test: { name: "unit", include: [UNIT], exclude: [MOCKING], isolate: false },
      },
    ],
  },
});
