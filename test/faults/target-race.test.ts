import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { expect, test } from "vitest";
import { openTarget } from "../../src/io/image-target/open.ts";
import { useScratch } from "../support/scratch.ts";

const scratch = useScratch();
const TAKER = new URL("../support/workers/target-taker.js", import.meta.url);

test("saves that fight for one path, with leftovers about, never lose what they have taken", async () => {
  const workerData = { image: scratch.file("vm.mfd"), until: Date.now() + 3000 };
  const workers = Array.from({ length: 4 }, () => new Worker(TAKER, { workerData }));
  const counts = await Promise.all(workers.map(async (worker) => (await once(worker, "message"))[0]));
  const sum = (key: "taken" | "lost"): number => counts.reduce((total, count) => total + count[key], 0);
  expect(sum("taken")).toBeGreaterThan(20);
  expect(sum("lost")).toBe(0);
});

test("a save in place does not take the file that another one, which fails, is about to remove", async () => {
  const request = {
    image: scratch.file("new"),
    offset: 4096,
    directIo: "off",
    onNote: () => undefined,
  } as const;
  const first = await openTarget(request);
  const second = openTarget(request);
  const refused = expect(second).rejects.toMatchObject({ code: "TARGET_BUSY" });
  await first.discard();
  await refused;
  expect(await scratch.names()).toEqual([]);
});
