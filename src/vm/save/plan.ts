import type { QemuFigures } from "../../control/events.ts";
import type { DiskRecord } from "../../formats/image/model.ts";
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
  /** When the save has failed and the migration is over, before the VM goes on: undoes what the plan did. */
  readonly undo?: () => Promise<void>;
  /** The VM's disks go on to be written after the moment of the image. */
  readonly ranOn: boolean;
  readonly afterwards: Then;
}
