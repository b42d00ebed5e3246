import { MEASUREMENTS, type Measurement } from "./measurements.ts";

const MIB = 2 ** 20;
/** A 64th of it is still whole pages for every channel; and QEMU's firmware needs its part. */
const LEAST_RAM_MIB = 64;

/** How much is measured, and where. */
export interface Plan {
  readonly ramBytes: number;
  readonly rounds: number;
  /** Where images lie for a while; a place on a disk is looked for when left out. */
  readonly directory: string | undefined;
  readonly measurements: readonly Measurement[];
}

export const PLAN_OPTIONS = {
  ram: { type: "string", default: "2048" },
  rounds: { type: "string", default: "7" },
  dir: { type: "string" },
} as const;

export interface PlanValues {
  readonly ram: string;
  readonly rounds: string;
  readonly dir?: string | undefined;
}

/** @throws Error in one sentence when a value makes no sense */
export function planOf(
  { ram, rounds, dir }: PlanValues,
  measurements: readonly Measurement[] = MEASUREMENTS,
): Plan {
  return {
    ramBytes: wholeNumber("--ram (MiB)", ram, LEAST_RAM_MIB) * MIB,
    rounds: wholeNumber("--rounds", rounds, 1),
    directory: dir,
    measurements,
  };
}

/** Those of the names, all when there are none. @throws Error for a name that is none */
export function measurementsNamed(names: readonly string[] | undefined): readonly Measurement[] {
  if (names === undefined) return MEASUREMENTS;
  const unknown = names.find((name) => !MEASUREMENTS.some((measurement) => measurement.name === name));
  if (unknown === undefined) return MEASUREMENTS.filter(({ name }) => names.includes(name));
  const known = MEASUREMENTS.map(({ name }) => name).join(", ");
  throw new Error(`there is no measurement ${unknown}, but ${known}`);
}

function wholeNumber(what: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= least) return value;
  throw new Error(`${what} is a whole number from ${least}, not ${text}`);
}
