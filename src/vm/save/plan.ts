import type { DiskOverlay, QemuFigures } from "../../control/events.ts";
import type { DiskRecord } from "../../formats/image/model.ts";
import type { Monitor } from "../../qmp/monitor.ts";
import type { Then } from "../guard/journal.ts";
import type { Settings } from "../settings.ts";

/** What one way of saving a VM does differently from another: the steps around the migration. */
export interface SavePlan {
  /** What QEMU is set to for the migration. */
  readonly wanted: Settings;
  /** A VM that runs is stopped before it is migrated. */
  readonly stopFirst: boolean;
  /** With the VM stopped, if it is to be, and nothing migrated yet. */
  readonly beforeMigrate?: () => Promise<void>;
  /** With each look at query-migrate; the answer is what this made of the VM, if anything. */
  readonly look?: (figures: QemuFigures) => Promise<"paused" | "running" | null>;
  /** When QEMU calls the migration completed, before the image is published. */
  readonly afterMigrate?: () => Promise<void>;
  /** The disks that fit this memory; asked after afterMigrate. */
  readonly disks: () => Promise<readonly DiskRecord[]>;
  /** When the image says what it is to say of the VM: the VM may go on before all of it is on disk. */
  readonly release?: () => Promise<"running" | null>;
  /** Overlays that the VM's disks get on the way. */
  readonly overlays?: readonly DiskOverlay[];
  /**
   * When the save has failed, the migration is over and the VM goes on if it ran: undoes what the plan did. Never rejects;
   * the monitor may be another one.
   */
  readonly undo?: (monitor: Monitor) => Promise<void>;
  /** After a failure: what is not as it was, for its message; null: nothing. */
  readonly leftovers?: () => string | null;
  /** The VM's disks go on to be written after the moment of the image. */
  readonly ranOn: boolean;
  readonly afterwards: Then;
}
