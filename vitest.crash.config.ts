import { defineConfig } from "vitest/config";

// The long runs: `npm run crash-matrix` and `npm run soak`. Each file alone, so that nothing else moves the moments.
export default defineConfig({
  test: {
    include: ["dist/test/crash/*.{matrix,soak}.js"],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    pool: "forks",
    maxWorkers: 1,
  },
});
