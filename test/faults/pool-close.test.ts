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

test("a pool that has grown runs its tasks at once, as many in one thread as in another", async () => {
  const code = { url: new URL("../support/workers/threads-own.js", import.meta.url), name: "feed" };
  const pool = new RunPool(code, 1);
  pool.grow(3);
  pool.grow(2);
  const together = { begun: new SharedArrayBuffer(4), tasks: 9 };
  const threads = await Promise.all(Array.from({ length: 9 }, () => pool.run<number>(together)));
  const tasks = [...new Set(threads)].map((thread) => threads.filter((other) => other === thread).length);
  expect(tasks).toEqual([3, 3, 3]);
  await pool.close();
  await pool.close();
});

test("threads that could not load their code while nobody needed them fail the first task", async () => {
  const url = new URL("../support/workers/no-descriptors.js", import.meta.url);
  const pool = new RunPool({ url, name: "feed" }, 2);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  await expect(pool.run({})).rejects.toMatchObject({
    code: "IO",
    message: expect.stringContaining("ulimit -n"),
  });
  await pool.close();
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
