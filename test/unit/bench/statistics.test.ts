import { describe, expect, test } from "vitest";
import { median, pairedRatio, spreadOf } from "../../../src/bench/statistics.ts";

describe("statistics of samples", () => {
  test("the median of an odd number is the middle one, of an even number the mean of two", () => {
    expect(median([9, 1, 5])).toBe(5);
    expect(median([4, 1, 3, 100])).toBe(3.5);
  });

  test("the spread is the middle half", () => {
    expect(spreadOf([5, 1, 2, 4, 3])).toEqual({ lower: 2, median: 3, upper: 4 });
    expect(spreadOf([1, 2])).toEqual({ lower: 1.25, median: 1.5, upper: 1.75 });
    expect(spreadOf([7])).toEqual({ lower: 7, median: 7, upper: 7 });
  });

  test("ratios are taken pair by pair, so that what both share falls out", () => {
    // The machine is four times slower in the second round.
    expect(pairedRatio([2, 8, 2], [1, 4, 1]).median).toBe(2);
    // The ratio of the medians would be 3.
    expect(pairedRatio([3, 3, 30], [1, 3, 10]).median).toBe(3);
    expect(pairedRatio([1, 4, 4], [1, 1, 2])).toEqual({ lower: 1.5, median: 2, upper: 3 });
  });

  test("what is no set of samples is refused", () => {
    expect(() => median([])).toThrow("nothing was measured");
    expect(() => pairedRatio([1], [1, 2])).toThrow("1 samples have 2 partners");
  });
});
