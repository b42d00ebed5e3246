import fc from "fast-check";
import { expect, test } from "vitest";
import { FaultTimes } from "../../../src/pool/paging/fault-times.ts";

function timesOf(micros: readonly number[]): FaultTimes {
  const times = new FaultTimes(new SharedArrayBuffer(FaultTimes.BYTES), 0);
  for (const one of micros) times.add(one);
  return times;
}

test("without any fault all is 0", () => {
  const { count, longest } = timesOf([]);
  expect([count, longest, timesOf([]).quantile(0.99)]).toEqual([0, 0, 0]);
});

test("a quantile is never below that of the sorted list, and at most a 16th above it", () => {
  const micros = fc.double({ min: 1, max: 2 ** 31, noNaN: true });
  const part = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(fc.array(micros, { minLength: 1, maxLength: 200 }), part, (list, wanted) => {
      const sorted = [...list].sort((a, b) => a - b);
      const exact = sorted[Math.max(0, Math.ceil(list.length * wanted) - 1)] as number;
      const told = timesOf(list).quantile(wanted);
      // Times are whole microseconds.
      expect(told).toBeGreaterThanOrEqual(Math.floor(exact));
      expect(told).toBeLessThanOrEqual(exact * (1 + 1 / 16) + 1);
    }),
  );
});

test("count and longest are exact", () => {
  fc.assert(
    fc.property(fc.array(fc.nat(2 ** 31), { minLength: 1 }), (list) => {
      const { count, longest } = timesOf(list);
      expect([count, longest]).toEqual([list.length, Math.max(...list)]);
    }),
  );
});

test("no quantile is above the longest", () => {
  expect(timesOf([1000]).quantile(1)).toBe(1000);
});

test("less than a microsecond counts as one", () => {
  const times = timesOf([0, 0.2]);
  expect([times.count, times.longest, times.quantile(0.5)]).toEqual([2, 1, 1]);
});

test("two threads see one another's times", () => {
  const memory = new SharedArrayBuffer(8 + FaultTimes.BYTES);
  new FaultTimes(memory, 8).add(50);
  expect(new FaultTimes(memory, 8).count).toBe(1);
});
