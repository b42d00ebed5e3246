import { type Accelerator, pickAccelerator as ask } from "../../src/demo/accelerator.ts";
import type { QemuBinary } from "../../src/vm/find-qemu.ts";

const answers = new Map<string, Promise<Accelerator>>();

/** The product's choice, which starts a QEMU to make it: asked once for each binary, not before every guest. */
export function pickAccelerator(binary: QemuBinary): Promise<Accelerator> {
  const answer = answers.get(binary.path) ?? ask(binary);
  answers.set(binary.path, answer);
  return answer;
}
