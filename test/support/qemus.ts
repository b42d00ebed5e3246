import { describe, test } from "vitest";
import { findQemus, type QemuBinary } from "../../src/vm/find-qemu.ts";

/** The two QEMUs that every claim about interoperability is held against. */
export interface BothQemus {
  /** 7.2: the oldest supported one, with the old multifd packets and barriers. */
  readonly seven: QemuBinary;
  /** 10.0 or later. */
  readonly ten: QemuBinary;
}

const found = await findQemus();
const seven = found.find(({ major, minor }) => major === 7 && minor === 2);
const ten = found.findLast(({ major }) => major >= 10);

/** A suite run once per QEMU, for what each must do alone. Without that QEMU: see `unavailable`. */
export function describeEachQemu(title: string, body: (binary: QemuBinary) => void): void {
  for (const [name, binary] of [
    ["QEMU 7.2", seven],
    ["QEMU 10", ten],
  ] as const) {
    if (binary === undefined) unavailable(`${title}: ${name}`, name);
    else describe(`${title}: ${name}`, () => body(binary));
  }
}

/** A suite that needs both, for what must pass from one to the other. */
export function describeBothQemus(title: string, body: (qemus: BothQemus) => void): void {
  if (seven === undefined) unavailable(title, "QEMU 7.2");
  else if (ten === undefined) unavailable(title, "QEMU 10");
  else describe(title, () => body({ seven, ten }));
}

/** CI must not stay green by testing nothing; elsewhere the suite shows as skipped, and says why. */
export function unavailable(title: string, name: string): void {
  const message = `${title} needs ${name}, which this machine lacks; run .ci/setup --tests`;
  if (process.env.CI === "true") throw new Error(message);
  console.warn(`\n*** NOT TESTED: ${message} ***\n`);
  describe.runIf(false)(title, () => test(`needs ${name}`, () => {}));
}
