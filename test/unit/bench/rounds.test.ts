import { describe, expect, test } from "vitest";
import { type RoundsProgress, runRounds, type Way } from "../../../src/bench/rounds.ts";

describe("rounds", () => {
  const never = new AbortController().signal;

  /** Ways that write down in which order they ran, and answer which run of all it was. */
  function noting(names: readonly string[]): { ways: Way<number>[]; order: string[] } {
    const order: string[] = [];
    const ways = names.map((name) => ({ name, run: async () => order.push(name) }));
    return { ways, order };
  }

  test("the order is turned round each time, and the warm-up's figures do not count", async () => {
    const { ways, order } = noting(["a", "b", "c"]);
    const samples = await runRounds(ways, { rounds: 2, signal: never });
    expect(order.join("")).toBe("abccbaabc");
    expect([...samples]).toEqual([
      ["a", [6, 7]],
      ["b", [5, 8]],
      ["c", [4, 9]],
    ]);
  });

  test("progress is told before each run", async () => {
    const { ways } = noting(["a", "b"]);
    const seen: RoundsProgress[] = [];
    await runRounds(ways, { rounds: 1, signal: never, onProgress: (progress) => seen.push(progress) });
    expect(seen.map(({ round, way, done, total }) => [round, way, done, total])).toEqual([
      [0, "a", 0, 4],
      [0, "b", 1, 4],
      [1, "b", 2, 4],
      [1, "a", 3, 4],
    ]);
  });

  test("an abort lets nothing more begin", async () => {
    const abort = new AbortController();
    const { ways, order } = noting(["a", "b"]);
    const stop: Way<number> = {
      name: "stop",
      run: async () => {
        abort.abort(new Error("enough"));
        return 0;
      },
    };
    const run = runRounds([...ways, stop], { rounds: 3, signal: abort.signal });
    await expect(run).rejects.toThrow("enough");
    expect(order).toEqual(["a", "b"]);
  });

  test("a way that fails ends it", async () => {
    const broken: Way<number> = { name: "broken", run: () => Promise.reject(new Error("no disk")) };
    await expect(runRounds([broken], { rounds: 1, signal: never })).rejects.toThrow("no disk");
  });
});
