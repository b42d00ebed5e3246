import { MultifdError } from "../../errors.ts";
import type { ControlBlock } from "../control-block.ts";
import type { IntakeTask } from "../messages.ts";
import { paced } from "../pacer.ts";

/** Counts bytes that are to be written now against --max-bytes, and waits for their turn under --rate. Throws LIMIT_EXCEEDED. */
export async function admitted(
  control: ControlBlock,
  { maxBytes, rate }: Pick<IntakeTask, "maxBytes" | "rate">,
  bytes: number,
): Promise<void> {
  const stored = control.addStored(bytes);
  if (maxBytes !== null && stored > maxBytes) {
    const text = `what is saved of the VM grew beyond --max-bytes ${maxBytes}: stop the VM before saving it, or allow more`;
    throw new MultifdError("LIMIT_EXCEEDED", text, { maxBytes });
  }
  await paced(control, bytes, rate);
}
