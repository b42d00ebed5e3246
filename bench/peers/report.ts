import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describeMachine, type Machine } from "../../src/bench/machine.ts";
import { fioVersion } from "./fio.ts";
import { MEASUREMENTS } from "./measurements.ts";
import type { Results } from "./sample.ts";

/** One run of measurements, and what its figures depend on: what is kept of it. */
export interface Report {
  /** ISO date. */
  readonly takenOn: string;
  readonly ramBytes: number;
  readonly rounds: number;
  readonly setting: Setting;
  /** The load of the machine, over a minute, before each measurement. */
  readonly loads: Readonly<Record<string, number>>;
  readonly results: Results;
}

/** The machine, and the programs that were compared. */
export interface Setting {
  readonly machine: Pick<Machine, "cpu" | "cores" | "memoryBytes" | "kernel" | "node">;
  readonly disk: Pick<Machine["target"], "fileSystem" | "device" | "model" | "rotates">;
  readonly qemu: string;
  readonly fio: string;
  readonly compiler: string;
}

/** @param directory where the images lie @param qemu the version */
export async function describeSetting(directory: string, qemu: string): Promise<Setting> {
  const { target, cpu, cores, memoryBytes, kernel, node } = await describeMachine(directory);
  const { fileSystem, device, model, rotates } = target;
  const { stdout } = await promisify(execFile)("cc", ["--version"]);
  return {
    machine: { cpu, cores, memoryBytes, kernel, node },
    disk: { fileSystem, device, model, rotates },
    qemu,
    fio: await fioVersion(),
    compiler: stdout.split("\n")[0] as string,
  };
}

/**
 * An earlier report with what was measured anew.
 * @throws Error where they are of different machines, programs, guests or rounds: ratios of both would say nothing
 */
export function joinReports(earlier: Report, taken: Report): Report {
  const scale = ({ ramBytes, rounds, setting }: Report): string =>
    JSON.stringify([ramBytes, rounds, setting]);
  if (scale(earlier) !== scale(taken)) {
    throw new Error(
      "the earlier samples are of another machine, guest or number of rounds: measure all anew",
    );
  }
  const results = { ...earlier.results, ...taken.results };
  const loads = { ...earlier.loads, ...taken.loads };
  return { ...taken, results: inOrder(results), loads };
}

/** As the page has them, whatever was measured last. */
function inOrder(results: Results): Results {
  const names = MEASUREMENTS.map(({ name }) => name);
  return Object.fromEntries(Object.entries(results).sort(([a], [b]) => names.indexOf(a) - names.indexOf(b)));
}
