import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describeMachine, type Machine } from "../../src/bench/machine.ts";
import { fioVersion } from "./fio.ts";
import type { Results } from "./sample.ts";

/** One run of measurements, and what its figures depend on: what is kept of it. */
export interface Report {
  /** ISO date. */
  readonly takenOn: string;
  readonly ramBytes: number;
  readonly rounds: number;
  readonly setting: Setting;
  readonly results: Results;
}

/** The machine, and the programs that were compared. */
export interface Setting {
  readonly machine: Pick<Machine, "cpu" | "cores" | "memoryBytes" | "kernel" | "node" | "load">;
  readonly disk: Pick<Machine["target"], "fileSystem" | "device" | "model" | "rotates">;
  readonly qemu: string;
  readonly fio: string;
  readonly compiler: string;
}

/** @param directory where the images lie @param qemu the version */
export async function describeSetting(directory: string, qemu: string): Promise<Setting> {
  const { target, cpu, cores, memoryBytes, kernel, node, load } = await describeMachine(directory);
  const { fileSystem, device, model, rotates } = target;
  const { stdout } = await promisify(execFile)("cc", ["--version"]);
  return {
    machine: { cpu, cores, memoryBytes, kernel, node, load },
    disk: { fileSystem, device, model, rotates },
    qemu,
    fio: await fioVersion(),
    compiler: stdout.split("\n")[0] as string,
  };
}
