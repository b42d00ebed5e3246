import type { BarrierMode } from "./summary.ts";

/**
 * How a machine type of x86, Arm and others with its version in the name pairs barriers with SYNC packets:
 * hw_compat_8_0 of QEMU 8.1 to 10.0 (hw/core/machine.c) turns multifd-flush-after-each-section on. A name without a
 * version ("microvm") has no such past.
 */
export function barrierModeOf(machine: string): BarrierMode {
  const [, major, minor] = /-(\d+)\.(\d+)(?:\.\d+)?$/.exec(machine) ?? [];
  if (major === undefined) return "modern";
  return Number(major) > 8 || (Number(major) === 8 && Number(minor) > 0) ? "modern" : "legacy";
}
