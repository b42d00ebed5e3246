import type { BarrierMode } from "./summary.ts";

/**
 * How a machine type of x86, Arm and others pairs barriers with SYNC packets: hw_compat_8_0 of QEMU 8.1 to 10.0
 * (hw/core/machine.c) turns multifd-flush-after-each-section on. Where the name has no version of QEMU (a vendor's, as
 * "pc-q35-rhel8.6.0", or "microvm"), a source before 8.1 decides: it knew machine types of its own past only. Of a newer one,
 * or an unknown one, the machine type is taken for new.
 * @param qemuVersion of the source, as QMP told it; null: unknown
 */
export function barrierModeOf(machine: string, qemuVersion: string | null): BarrierMode {
  const [, ofName] = /-(\d+\.\d+)(?:\.\d+)?$/.exec(machine) ?? [];
  const version = ofName ?? qemuVersion;
  return version === null || isNew(version) ? "modern" : "legacy";
}

/** 8.1 or later; also of what is no version. */
function isNew(version: string): boolean {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(version) ?? ["", "8", "1"];
  return Number(major) > 8 || (Number(major) === 8 && Number(minor) > 0);
}
