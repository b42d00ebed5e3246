/** Where the middle half of some samples lies. */
export interface Spread {
  /** The first quartile. */
  readonly lower: number;
  readonly median: number;
  /** The third quartile. */
  readonly upper: number;
}

/** @param values one at least */
export function median(values: readonly number[]): number {
  return quantile(sorted(values), 0.5);
}

/** Quartiles, interpolated between neighbours. @param values one at least */
export function spreadOf(values: readonly number[]): Spread {
  const ordered = sorted(values);
  return { lower: quantile(ordered, 0.25), median: quantile(ordered, 0.5), upper: quantile(ordered, 0.75) };
}

/**
 * How many times `values` is of `base`, pair by pair: what drifts between rounds falls out.
 * @param values as many as in `base`, one at least, the n-th of both from one round
 */
export function pairedRatio(values: readonly number[], base: readonly number[]): Spread {
  if (values.length !== base.length)
    throw new RangeError(`${values.length} samples have ${base.length} partners`);
  return spreadOf(values.map((value, round) => value / (base[round] as number)));
}

function sorted(values: readonly number[]): number[] {
  if (values.length === 0) throw new RangeError("nothing was measured");
  return values.toSorted((a, b) => a - b);
}

function quantile(ordered: readonly number[], share: number): number {
  const position = (ordered.length - 1) * share;
  const below = ordered[Math.floor(position)] as number;
  const above = ordered[Math.ceil(position)] as number;
  return below + (above - below) * (position - Math.floor(position));
}
