import { ALIGNMENT } from "./model.ts";

/** The smallest multiple of 4096 (or of another alignment) that is not below `bytes`: what a length occupies once padded, and where a base lies. */
export function alignUp(bytes: number, alignment: number = ALIGNMENT): number {
  return Math.ceil(bytes / alignment) * alignment;
}

export function isAligned(bytes: number): boolean {
  return bytes % ALIGNMENT === 0;
}
