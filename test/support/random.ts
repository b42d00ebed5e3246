/** Random choices that a seed repeats; tests put the seed into what they report. */
export interface Random {
  readonly seed: number;
  /** 0 … below - 1. */
  integer(below: number): number;
  /** 0 ≤ x < 1. */
  fraction(): number;
  pick<T>(from: readonly T[]): T;
}

/** Without a seed it takes TEST_SEED from the environment, or a new one each time. */
export function seededRandom(seed: number = chosenSeed()): Random {
  // mulberry32: 32 bits of state are plenty for choosing where to do damage.
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const integer = (below: number): number => Math.floor(fraction() * below);
  return { seed, fraction, integer, pick: <T>(from: readonly T[]) => from[integer(from.length)] as T };
}

function chosenSeed(): number {
  const given = process.env.TEST_SEED;
  return given === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(given);
}
