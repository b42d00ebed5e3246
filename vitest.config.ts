import { defineConfig } from "vitest/config";

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
  },
});
