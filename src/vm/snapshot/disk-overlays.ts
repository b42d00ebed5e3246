import { existsSync, rmSync } from "node:fs";
import { type MultifdError, toFailure } from "../../errors.ts";
import type { DiskRecord } from "../../formats/image/model.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import { overlaysInUse } from "../disks/overlays-in-use.ts";
import { recordLayers } from "../disks/record.ts";
import { commitOverlays } from "./commit-overlays.ts";
import type { PlannedOverlay } from "./overlay-plan.ts";

/** External snapshots of a VM's disks: what was written before the moment stays in the base, what comes goes into the overlay. */
export class DiskOverlays {
  readonly planned: readonly PlannedOverlay[];
  #taken = false;
  /** Why they could not be taken away again. */
  #stuck = "";

  constructor(planned: readonly PlannedOverlay[]) {
    this.planned = planned;
  }

  /**
   * Takes all of them at one moment; the VM must not run.
   * @throws MultifdError QEMU_FAILED: none was taken
   */
  async take(monitor: Monitor): Promise<void> {
    if (this.planned.length === 0) return;
    const actions = this.planned.map(({ node, overlay, overlayNode }) => ({
      type: "blockdev-snapshot-sync",
      data: {
        "node-name": node,
        "snapshot-file": overlay,
        "snapshot-node-name": overlayNode,
        format: "qcow2",
        mode: "absolute-paths",
      },
    }));
    this.#taken = true; // as far as can be known if the answer gets lost
    try {
      await monitor.execute("transaction", { actions });
    } catch (error) {
      if ((error as MultifdError).details?.class === undefined) throw error;
      // QEMU leaves the files that it had made until one failed.
      for (const { overlay } of this.planned) rmSync(overlay, { force: true });
      this.#taken = false;
      throw error;
    }
  }

  /** The disks of the moment: what has an overlay now is its base. */
  async frozen(monitor: Monitor): Promise<DiskRecord[]> {
    return (await recordLayers(monitor)).map(([top, ...below]) => {
      const { base, node } = this.planned.find(({ overlay }) => overlay === top.file) ?? {};
      const record = below.find(({ file }) => file === base);
      return record === undefined ? top : { ...record, node: node ?? "" };
    });
  }

  /** Takes them away again. What stays is told by leftovers(). Never rejects. */
  async undo(monitor: Monitor): Promise<void> {
    if (!this.#taken) return;
    try {
      const used = await overlaysInUse(monitor, this.planned);
      await commitOverlays(monitor, used);
      this.#taken = false;
    } catch (error) {
      this.#stuck = ` (${toFailure(error).message})`;
    }
  }

  /** What somebody has to know about the disks after a failure; null: nothing. */
  leftovers(): string | null {
    const files = this.planned.map(({ overlay }) => overlay).filter((overlay) => existsSync(overlay));
    if (!this.#taken || files.length === 0) return null;
    return `what the VM writes is in ${files.join(", ")} now${this.#stuck}: keep these and the files below them`;
  }
}
