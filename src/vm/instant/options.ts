import type { InstantOptions } from "../../control/instant/options.ts";

/** How an image is served, whatever becomes of the VM. */
export type ServingOptions = Omit<InstantOptions, "connect" | "hostPages" | "resume">;

/** An instant restore of a VM whose QEMU is driven: what restoreInstant() is told of the destination, QEMU itself tells. */
export interface InstantVmOptions extends ServingOptions {
  /** The destination's UUID where it is another one on purpose: a clone. */
  readonly uuid?: string | undefined;
  /** Whether the VM runs; as it did when it was saved, when left out. */
  readonly run?: boolean | undefined;
}

/** Goes on with an instant restore; the VM runs, or is paused, as it was. */
export interface ResumeInstantOptions extends ServingOptions {
  /** Path of QEMU's monitor. */
  readonly vm: { readonly qmp: string };
}
