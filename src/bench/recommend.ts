import type { Operation } from "./choices.ts";
import type { Result } from "./results.ts";

/** Less than this beside the best is no reason for more channels. */
const CLOSE = 0.95;

/** What to use on this host. */
export interface Recommendation {
  readonly operation: Operation;
  readonly chosen: Result;
  readonly best: Result;
}

/**
 * The fewest channels within 5 % of the best throughput, and of these the fastest. The operation measured first counts:
 * a save if there was one. Without checksums only where nothing else was measured: no damage would be found.
 * @param results of one sweep; null: nothing was measured
 */
export function recommend(results: readonly Result[]): Recommendation | null {
  const operation = results[0]?.operation;
  const ofOperation = results.filter((result) => result.operation === operation);
  const checked = ofOperation.filter(({ checksum }) => checksum !== "none");
  const candidates = (checked.length > 0 ? checked : ofOperation).toSorted((a, b) => speed(b) - speed(a));
  const best = candidates[0];
  if (operation === undefined || best === undefined) return null;
  const close = candidates.filter((result) => speed(result) >= CLOSE * speed(best));
  const fewest = Math.min(...close.map(({ channels }) => channels));
  return { operation, chosen: close.find(({ channels }) => channels === fewest) ?? best, best };
}

function speed({ figures }: Result): number {
  return figures.gibPerSecond.median;
}
