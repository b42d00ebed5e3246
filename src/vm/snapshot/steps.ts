import type { Monitor } from "../../qmp/monitor.ts";
import { goOn } from "../guard/rescue.ts";
import { LivePolicy } from "../save/live-policy.ts";
import type { SaveVmOptions } from "../save/options.ts";
import type { SavePlan } from "../save/plan.ts";
import { settingsFor } from "../save/settings-for-save.ts";
import type { DiskOverlays } from "./disk-overlays.ts";

type Steps = Pick<SavePlan, "wanted" | "stopFirst" | "beforeMigrate" | "look" | "afterMigrate" | "release">;

/**
 * As of the start: each page is sent once, as it was. QEMU stops the VM for a moment by itself; with disks it is stopped
 * before, for their overlays, and goes on when the moment is over.
 */
export function backgroundSteps(monitor: Monitor, { rate }: SaveVmOptions, overlays: DiskOverlays): Steps {
  const steps: Steps = {
    wanted: {
      capabilities: { events: true, "background-snapshot": true },
      parameters: { "max-bandwidth": rate ?? 0 },
    },
    stopFirst: overlays.planned.length > 0,
  };
  if (overlays.planned.length === 0) return steps;
  let stands = true;
  return {
    ...steps,
    beforeMigrate: () => overlays.take(monitor),
    look: async () => {
      if (!stands || !(await hasSentPages(monitor))) return null;
      stands = false;
      return await run(monitor);
    },
    release: () => run(monitor),
  };
}

/** As of the end: QEMU stops the VM for the last of its RAM, and that is the moment of its disks. */
export function livingSteps(monitor: Monitor, options: SaveVmOptions, overlays: DiskOverlays): Steps {
  const policy = new LivePolicy(monitor, options.live ?? {});
  return {
    wanted: settingsFor(options),
    stopFirst: false,
    look: (figures) => policy.look(figures),
    afterMigrate: () => overlays.take(monitor),
    release: () => run(monitor),
  };
}

/**
 * Of a VM that stands still, as it stands. A background snapshot is nothing for it: QEMU aborts where the VM has never run
 * (invalid runstate transition: 'prelaunch' -> 'paused', 7.2 and 10.0.2).
 */
export function standingSteps(monitor: Monitor, options: SaveVmOptions, overlays: DiskOverlays): Steps {
  return { wanted: settingsFor(options), stopFirst: false, beforeMigrate: () => overlays.take(monitor) };
}

/**
 * "active" comes before QEMU has stopped the VM and saved its devices, and a VM that ran then would be ahead of its disks.
 * The first page is sent when all of RAM is write-protected (bg_migration_thread, QEMU 7.2 to 10).
 */
async function hasSentPages(monitor: Monitor): Promise<boolean> {
  const { ram } = (await monitor.execute("query-migrate")) as {
    ram?: { readonly normal: number; readonly duplicate: number };
  };
  return ram !== undefined && ram.normal + ram.duplicate > 0;
}

async function run(monitor: Monitor): Promise<"running" | null> {
  return (await goOn(monitor, true)) === "running" ? "running" : null;
}
