import fs from "node:fs";
import { throwIfAborted } from "../../control/cancellation.ts";
import { ioError } from "../../io/file-io.ts";
import { flushDirectoryOf } from "../../io/image-target/durability.ts";
import type { ManagedPlace } from "./directory.ts";

/**
 * A managed image is used up at most once, whenever the host fails: before its VM is let run it gets another name, under
 * which nobody restores it, and that is on disk.
 *
 *   NAME.mfd ── take ──▶ NAME.mfd.resuming ── spend ──▶ gone
 *       ▲                      │
 *       └────── giveBack ──────┘  the VM has certainly not run
 */
export class Claim {
  readonly #place: ManagedPlace;
  #taken = false;

  constructor(place: ManagedPlace) {
    this.#place = place;
  }

  get taken(): boolean {
    return this.#taken;
  }

  /** From when this returns the VM may run. Throws CANCELLED or IO, and the image is where it was. */
  take(signal: AbortSignal | undefined): void {
    throwIfAborted(signal);
    const { image, resuming } = this.#place;
    try {
      fs.renameSync(image, resuming);
      this.#taken = true;
      flushDirectoryOf(image);
    } catch (error) {
      if (this.#taken) this.giveBack();
      throw ioError(error, `taking ${image} for its one start`);
    }
  }

  /** Throws IO. */
  giveBack(): void {
    const { image, resuming } = this.#place;
    try {
      fs.renameSync(resuming, image);
      this.#taken = false;
      flushDirectoryOf(image);
    } catch (error) {
      throw ioError(error, `giving ${resuming} back its name ${image}`);
    }
  }

  /** The VM runs. Throws IO: that does not keep it from running. */
  spend(): void {
    const { resuming } = this.#place;
    try {
      fs.unlinkSync(resuming);
      flushDirectoryOf(resuming);
    } catch (error) {
      throw ioError(error, `removing the used image ${resuming}`);
    }
  }
}
