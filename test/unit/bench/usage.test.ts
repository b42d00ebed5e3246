import { spawn } from "node:child_process";
import { once } from "node:events";
import { describe, expect, test } from "vitest";
import { PageCacheWatch, ProcessWatch, pageCache, processUsage } from "../../../src/bench/usage.ts";

/** Computes for 250 ms of processor time in 48 MiB, says so, and waits for its end. */
const BUSY = `
  const memory = Buffer.alloc(48 * 2 ** 20, 1);
  while (process.cpuUsage().user < 250_000) memory.fill(2);
  console.log("done");
  process.stdin.resume();
`;

describe("what a process costs", () => {
  test("processor time and peak memory are told until its end, and after it", async () => {
    const child = spawn(process.execPath, ["-e", BUSY], { stdio: ["pipe", "pipe", "inherit"] });
    const watch = new ProcessWatch(child.pid as number);
    await once(child.stdout, "data");
    const busy = watch.now();
    expect(busy.cpuSeconds).toBeGreaterThanOrEqual(0.2);
    expect(busy.peakRssBytes).toBeGreaterThan(48 * 2 ** 20);

    child.stdin.end();
    await once(child, "close");
    const whole = watch.stop();
    expect(processUsage(child.pid as number)).toBeNull();
    expect(whole.cpuSeconds).toBeGreaterThanOrEqual(busy.cpuSeconds);
    expect(whole.peakRssBytes).toBeGreaterThanOrEqual(busy.peakRssBytes);
  });
});

describe("the machine's page cache", () => {
  test("is read from /proc/meminfo", () => {
    expect(pageCache().cachedBytes).toBeGreaterThan(0);
  });

  test("never grows by less than nothing", () => {
    const grown = new PageCacheWatch().stop();
    for (const bytes of Object.values(grown)) expect(bytes).toBeGreaterThanOrEqual(0);
  });
});
