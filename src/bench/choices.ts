/*
 * What may be chosen. Apart from what does it, as the command line reads this at every start.
 */

export const OPERATIONS = ["save", "restore", "verify"] as const;
export type Operation = (typeof OPERATIONS)[number];
/** What is measured when nothing is said: a sweep of it ends in three minutes. */
export const DEFAULT_OPERATIONS: readonly Operation[] = ["save", "restore"];

export const PAGE_MIXES = ["random", "zero", "compressible", "mix"] as const;

/**
 * What the guest's pages hold. random: nothing compresses it; compressible: text; zero: zero pages, which QEMU sends as
 * offsets alone; mix: as guests have them, see fillRam.
 */
export type PageMix = (typeof PAGE_MIXES)[number];

export const FILLS = ["random", "zero", "mix"] as const;

/** What a real guest's RAM holds: as the generator's pages of the same name. */
export type Fill = (typeof FILLS)[number];
