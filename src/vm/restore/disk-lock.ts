import { MultifdError } from "../../errors.ts";

/** Why a restored VM may not run: the VM that was saved uses its disks, or another restore of it. */
export function explainLock(error: unknown): never {
  if (!(error instanceof MultifdError) || !/Failed to get .*lock/.test(String(error.details.text)))
    throw error;
  const text = `another process uses a disk of the restored VM (${error.details.text}): end that one, or give this VM overlays of its own (qemu-img create -f qcow2 -b DISK -F FORMAT OVERLAY)`;
  throw new MultifdError("QEMU_FAILED", text, error.details, error);
}
