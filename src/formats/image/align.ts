import { ALIGNMENT } from "./model.ts";

/** The smallest multiple of 4096 that is not below `bytes`: what a length occupies once padded, and where a base lies. */
export function alignUp(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}

export function isAligned(bytes: number): boolean {
  return bytes % ALIGNMENT === 0;
}
