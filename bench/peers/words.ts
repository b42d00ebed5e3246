import { figureOf } from "../../src/bench/chart.ts";
import type { Spread } from "../../src/bench/statistics.ts";
import type { Bound, Target, Verdict } from "./targets.ts";

/** "1.32 (1.28–1.35)" */
export function withSpread({ lower, median, upper }: Spread): string {
  return `${figureOf(median)} (${figureOf(lower)}–${figureOf(upper)})`;
}

/** "≥ 1.3 ×" */
export function boundWords(bound: Bound | null, unit: Target["unit"]): string {
  if (bound === null) return "only told";
  return "atLeast" in bound ? `≥ ${bound.atLeast} ${unit}` : `≤ ${bound.atMost} ${unit}`;
}

export function holdsWords({ holds }: Verdict): string {
  return holds === null ? "–" : holds ? "yes" : "no";
}

/** "2 GiB", "23.5 GiB", "256 MiB" */
export function sizeWords(bytes: number): string {
  const [value, unit] = bytes < 2 ** 30 ? [bytes / 2 ** 20, "MiB"] : [bytes / 2 ** 30, "GiB"];
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${unit}`;
}

export function channelWords(channels: number): string {
  return channels === 1 ? "1 channel" : `${channels} channels`;
}
