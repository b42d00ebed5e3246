import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { RunPool } from "../../src/pool/run-pool.ts";

const SLOW_LOADING = { url: new URL("../support/workers/slow-loading.js", import.meta.url), name: "feed" };

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mfd-pool-"));
});
afterEach(async () => {
  delete process.env.SLOW_LOADING;
  await rm(directory, { recursive: true });
});

// Terminating a thread in the middle of loading koffi aborts the whole process: a run that failed at once died of it.
test.each([0, 50, 200])("no thread is ended while it loads its code, closed after %i ms", async (afterMs) => {
  const diary = join(directory, "diary");
  process.env.SLOW_LOADING = diary;
  const pool = new RunPool(SLOW_LOADING, 2);
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  await pool.close();
  expect(await readFile(diary, "utf8")).toBe("loaded\n".repeat(2));
});

test("a thread that lacks descriptors to load its code says which limit to raise", async () => {
  const pool = new RunPool(
    { url: new URL("../support/workers/no-descriptors.js", import.meta.url), name: "feed" },
    1,
  );
  await expect(pool.run({})).rejects.toMatchObject({
    code: "IO",
    message: expect.stringContaining("ulimit -n"),
  });
  await pool.close();
});
