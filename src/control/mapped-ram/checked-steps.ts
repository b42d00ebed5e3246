import { crc32 } from "node:zlib";
import type { CopiedStep } from "../../formats/mapped-ram/main-steps.ts";
import { readSpan } from "../../io/file-io.ts";
import type { CheckedCopy } from "../../pool/messages.ts";

const PIECE = 1024 * 1024;

/**
 * Takes the checksums of what will be copied out of a file whose stream was checked, so that it is sent as it was then.
 * @throws MultifdError IO
 */
export async function checkedSteps<S extends { readonly kind: string }>(
  fd: number,
  steps: readonly (S | CopiedStep)[],
): Promise<(Exclude<S, CopiedStep> | CheckedCopy)[]> {
  const checked: (Exclude<S, CopiedStep> | CheckedCopy)[] = [];
  for (const step of steps) {
    checked.push(
      isCopied(step) ? { ...step, crc32: await sumOf(fd, step) } : (step as Exclude<S, CopiedStep>),
    );
  }
  return checked;
}

function isCopied(step: { readonly kind: string }): step is CopiedStep {
  return step.kind === "copied";
}

async function sumOf(fd: number, { offset, length }: CopiedStep): Promise<number> {
  let crc = 0;
  for (let at = 0; at < length; at += PIECE) {
    crc = crc32(await readSpan(fd, offset + at, Math.min(PIECE, length - at)), crc);
  }
  return crc;
}
