import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { paceOf } from "../../../src/pool/paging/pace.ts";

const PAGE = 4096;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["performance"] });
});
afterEach(() => {
  vi.useRealTimers();
});

test("as fast as it may: no rest, and larger chunks than while the guest waits for pages now and then", () => {
  const pace = paceOf("auto");
  pace.sent(2 ** 30);
  expect([pace.moves, pace.rest, pace.chunkPages]).toEqual([true, 0, 64]);
  pace.served(0.1);
  expect([pace.rest, pace.chunkPages]).toEqual([0, 16]);
  vi.advanceTimersByTime(5);
  expect(pace.chunkPages).toBe(64);
});

test("a fault that took long lets the background rest for twice as long, and for 50 ms at most", () => {
  const pace = paceOf("auto");
  pace.served(3);
  expect(pace.rest).toBe(6);
  vi.advanceTimersByTime(4);
  expect(pace.rest).toBe(2);
  pace.served(1000);
  expect(pace.rest).toBe(50);
  vi.advanceTimersByTime(60);
  expect(pace.rest).toBe(0);
});

test("at a rate each byte has its time, and time that passed unused is not made up for", () => {
  const pace = paceOf(1000 * PAGE);
  expect([pace.moves, pace.rest]).toEqual([true, 0]);
  pace.sent(10 * PAGE);
  pace.sent(5 * PAGE);
  expect(pace.rest).toBeCloseTo(15);
  vi.advanceTimersByTime(100);
  pace.sent(10 * PAGE);
  expect(pace.rest).toBeCloseTo(10);
});

test("at a rate long faults change nothing", () => {
  const pace = paceOf(1000 * PAGE);
  pace.served(1000);
  expect(pace.rest).toBe(0);
});

test("at the rate 0 there is no background", () => {
  expect(paceOf(0).moves).toBe(false);
});
